// exp, sigmoid and softplus on sixteen lanes, the same polynomial for every instruction set. Include after an isa_*.h.
// `max` returns its second operand when one is NaN: x stands there, so that a diverged score is a NaN loss.
#pragma once

namespace recsparse::RS_ISA {

// exp(x) for x <= 0, relative error about 1e-7; underflows to about 1e-38 instead of a denormal.
RS_INLINE F16 exp_negative(F16 x) {
  x = max(F16(-87.0f), x);
  const F16 n = round(x * F16(1.44269504f));
  F16 r = x - n * F16(0.693359375f);
  r = r - n * F16(-2.12194440e-4f);
  F16 p(1.9875691500e-4f);
  p = p * r + F16(1.3981999507e-3f);
  p = p * r + F16(8.3334519073e-3f);
  p = p * r + F16(4.1665795894e-2f);
  p = p * r + F16(1.6666665459e-1f);
  p = p * r + F16(5.0000001201e-1f);
  return (p * r * r + r + F16(1.0f)) * exp2_integer(n);
}

struct LogisticLoss {
  F16 sigmoid, softplus;
};

// sigmoid(x) and softplus(x) = log(1 + exp(x)). With e = exp(-|x|) and z = e / (2 + e): log1p(e) = 2 atanh(z), z <= 1/3.
RS_INLINE LogisticLoss logistic_loss(F16 x) {
  const F16 e = exp_negative(F16(0.0f) - abs(x));
  const F16 z = e / (F16(2.0f) + e);
  const F16 z2 = z * z;
  F16 p(1.0f / 15);
  p = p * z2 + F16(1.0f / 13);
  p = p * z2 + F16(1.0f / 11);
  p = p * z2 + F16(1.0f / 9);
  p = p * z2 + F16(1.0f / 7);
  p = p * z2 + F16(1.0f / 5);
  p = p * z2 + F16(1.0f / 3);
  p = p * z2 + F16(1.0f);
  const F16 log1p_e = F16(2.0f) * z * p;
  const F16 small = e / (F16(1.0f) + e);  // sigmoid(-|x|)
  LogisticLoss out;
  out.softplus = max(F16(0.0f), x) + log1p_e;
  out.sigmoid = select(greater(x, F16(0.0f)), F16(1.0f) - small, small);
  return out;
}

}  // namespace recsparse::RS_ISA
