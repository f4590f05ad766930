// Bandwidth roofs for the benchmark: torch.ops.recsparse.ceiling_copy_ / ceiling_read / ceiling_gather, CPU only.
#include "../cpu/ceilings.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>

namespace recsparse {
namespace {

constexpr int64_t kChunk = int64_t{1} << 18;  // bytes in a stream chunk; a multiple of every alignment below

void check_bytes(const at::Tensor& t, const char* name) {
  TORCH_CHECK(t.scalar_type() == at::kByte && t.dim() == 1 && t.is_contiguous() && t.device().is_cpu(), name,
              " must be a contiguous 1-D uint8 tensor on the CPU");
  TORCH_CHECK(t.numel() % 64 == 0 && reinterpret_cast<uintptr_t>(t.const_data_ptr()) % 64 == 0, name,
              " must have a size and an address that are multiples of 64 bytes");
}

void ceiling_copy_(const at::Tensor& dst, const at::Tensor& src) {
  check_bytes(dst, "dst");
  check_bytes(src, "src");
  TORCH_CHECK(dst.numel() == src.numel(), "dst and src differ in size: ", dst.numel(), " and ", src.numel());
  auto* out = dst.mutable_data_ptr<uint8_t>();
  const auto* in = src.const_data_ptr<uint8_t>();
  const int64_t size = src.numel();
  at::parallel_for(0, (size + kChunk - 1) / kChunk, 1, [&](int64_t first, int64_t last) {
    const int64_t begin = first * kChunk;
    const int64_t end = std::min(size, last * kChunk);
    cpu::ceiling_copy(out + begin, in + begin, end - begin);
  });
}

int64_t ceiling_read(const at::Tensor& src) {
  check_bytes(src, "src");
  const auto* in = src.const_data_ptr<uint8_t>();
  const int64_t size = src.numel();
  std::atomic<uint64_t> sum{0};
  at::parallel_for(0, (size + kChunk - 1) / kChunk, 1, [&](int64_t first, int64_t last) {
    const int64_t begin = first * kChunk;
    sum += cpu::ceiling_read(in + begin, std::min(size, last * kChunk) - begin);
  });
  return static_cast<int64_t>(sum.load());
}

int64_t ceiling_gather(const at::Tensor& table, const at::Tensor& ids, int64_t line_bytes, int64_t ahead) {
  check_bytes(table, "table");
  TORCH_CHECK(ids.scalar_type() == at::kLong && ids.dim() == 1 && ids.is_contiguous() && ids.device().is_cpu(),
              "ids must be a contiguous 1-D int64 tensor on the CPU");
  TORCH_CHECK(line_bytes > 0 && line_bytes % 64 == 0 && table.numel() >= line_bytes,
              "line_bytes must be a multiple of 64 and fit in the table, got ", line_bytes);
  TORCH_CHECK(ahead >= 0, "ahead must not be negative, got ", ahead);
  const auto* rows = table.const_data_ptr<uint8_t>();
  const auto* id = ids.const_data_ptr<int64_t>();
  const int64_t lines = table.numel() / line_bytes;
  std::atomic<uint64_t> sum{0};
  at::parallel_for(0, ids.numel(), 1024, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      TORCH_CHECK_INDEX(id[i] >= 0 && id[i] < lines, "ids[", i, "] = ", id[i], " is outside [0, ", lines, ")");
    }
    sum += cpu::ceiling_gather(rows, id + first, last - first, line_bytes, ahead);
  });
  return static_cast<int64_t>(sum.load());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(recsparse, m) {
  m.def("ceiling_copy_(Tensor(a!) dst, Tensor src) -> ()");
  m.def("ceiling_read(Tensor src) -> int");
  m.def("ceiling_gather(Tensor table, Tensor ids, int line_bytes, int ahead=32) -> int");
}

TORCH_LIBRARY_IMPL(recsparse, CPU, m) {
  m.impl("ceiling_copy_", &ceiling_copy_);
  m.impl("ceiling_read", &ceiling_read);
  m.impl("ceiling_gather", &ceiling_gather);
}

}  // namespace recsparse
