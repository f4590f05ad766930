#include "host/synthetic.h"

#include <algorithm>
#include <string>
#include <unordered_set>
#include <utility>

namespace recsparse::host {
namespace {

constexpr int32_t kMaxExtraRounds = 4096;  // beyond its degree a user rarely draws anything new for that long

int32_t item_at(const SyntheticSpec& spec, const SyntheticUser& profile, int64_t user, int32_t number) {
  uint32_t places[2];
  synthetic_pair(spec, profile, static_cast<uint64_t>(user), static_cast<uint32_t>(number / 2), places);
  return static_cast<int32_t>(synthetic_item(spec, places[number % 2]));
}

// Pairs added to the stream's own, with a look-up that covers both.
class Extras {
 public:
  explicit Extras(const Csr& base) : base_(base) {}

  bool add(int64_t user, int32_t item) {
    const auto first = base_.items.begin() + base_.indptr[user], last = base_.items.begin() + base_.indptr[user + 1];
    if (std::binary_search(first, last, item) || !known_.insert(user << 31 | item).second) return false;
    users_.push_back(static_cast<int32_t>(user));
    items_.push_back(item);
    return true;
  }

  Csr merged(int64_t n_users) const {
    std::vector<int32_t> users, items;
    std::vector<int64_t> ends;
    users.reserve(n_users + users_.size());
    for (int64_t u = 0; u < n_users; ++u) {
      users.push_back(static_cast<int32_t>(u));
      ends.push_back(base_.indptr[u + 1]);
    }
    for (size_t e = 0; e < users_.size(); ++e) {
      users.push_back(users_[e]);
      ends.push_back(static_cast<int64_t>(base_.items.size() + e + 1));
    }
    items = base_.items;
    items.insert(items.end(), items_.begin(), items_.end());
    return build_csr(users.data(), ends.data(), static_cast<int64_t>(users.size()), items.data(), n_users);
  }

  int64_t size() const { return static_cast<int64_t>(items_.size()); }

 private:
  const Csr& base_;
  std::unordered_set<int64_t> known_;
  std::vector<int32_t> users_, items_;
};

Csr stream_pairs(const SyntheticSpec& spec) {
  std::vector<int32_t> users, items;
  std::vector<int64_t> ends;
  for (int64_t u = 0; u < spec.n_users; ++u) {
    const SyntheticUser profile = synthetic_user(spec, static_cast<uint64_t>(u));
    for (int32_t k = 0; k < profile.degree; ++k) items.push_back(item_at(spec, profile, u, k));
    users.push_back(static_cast<int32_t>(u));
    ends.push_back(static_cast<int64_t>(items.size()));
  }
  return build_csr(users.data(), ends.data(), spec.n_users, items.data(), spec.n_users);
}

}  // namespace

Csr materialise(const SyntheticSpec& spec, int64_t pairs) {
  const Csr base = stream_pairs(spec);
  Extras extras(base);
  std::vector<char> drawn(static_cast<size_t>(spec.n_items), 0);
  for (const int32_t item : base.items) drawn[item] = 1;
  for (int64_t item = 0; item < spec.n_items; ++item) {
    if (drawn[item]) continue;
    const Philox4 r = philox(spec.seed, UINT64_MAX - 1, static_cast<uint32_t>(item), kStreamSynthetic);
    extras.add(bounded32(r.w[0], static_cast<uint32_t>(spec.n_users)), static_cast<int32_t>(item));
  }
  int64_t missing = pairs - static_cast<int64_t>(base.items.size()) - extras.size();
  if (missing < 0) {
    throw DataError("the stream and one user for each item already make " + std::to_string(pairs - missing) +
                    " pairs, more than " + std::to_string(pairs));
  }
  for (int32_t round = 0; missing > 0 && round < kMaxExtraRounds; ++round) {
    for (int64_t u = 0; missing > 0 && u < spec.n_users; ++u) {
      const SyntheticUser profile = synthetic_user(spec, static_cast<uint64_t>(u));
      missing -= extras.add(u, item_at(spec, profile, u, profile.degree + round));
    }
  }
  if (missing > 0) throw DataError("the stream runs out " + std::to_string(missing) + " pairs early");
  return extras.merged(spec.n_users);
}

Csr streamed_rows(const SyntheticSpec& spec, const int64_t* users, int64_t n, int32_t skip, int32_t count) {
  Csr out;
  out.indptr.push_back(0);
  for (int64_t row = 0; row < n; ++row) {
    const SyntheticUser profile = synthetic_user(spec, static_cast<uint64_t>(users[row]));
    const int32_t first = count ? profile.degree + skip : 0, last = count ? first + count : profile.degree;
    const size_t begin = out.items.size();
    for (int32_t number = first; number < last; ++number) {
      out.items.push_back(item_at(spec, profile, users[row], number));
    }
    std::sort(out.items.begin() + begin, out.items.end());
    out.items.erase(std::unique(out.items.begin() + begin, out.items.end()), out.items.end());
    out.indptr.push_back(static_cast<int64_t>(out.items.size()));
  }
  return out;
}

}  // namespace recsparse::host
