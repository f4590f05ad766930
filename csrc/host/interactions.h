// User-item interactions: text in, CSR out. Torch-free.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace recsparse::host {

// A mistake in the user's data; what() is one line and names the place.
struct DataError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Largest accepted id: item ids are stored as int32 and counts (id + 1) must fit too.
constexpr int64_t kMaxId = INT32_MAX - 1;

// A parsed file, still in file order: line l is user line_users[l] with items[line_ends[l - 1], line_ends[l]).
// Four bytes an interaction, so that text and CSR together stay far below three edge lists of 8 bytes a pair.
struct TextInteractions {
  std::vector<int32_t> line_users;
  std::vector<int64_t> line_ends;
  std::vector<int32_t> items;
  int64_t max_user = -1;
  int64_t max_item = -1;
};

// Compressed sparse rows: the items of user u are items[indptr[u], indptr[u + 1]), ascending and unique.
struct Csr {
  std::vector<int64_t> indptr;
  std::vector<int32_t> items;
  int64_t duplicates = 0;
};

// Reads the LightGCN / NGCF format: one line a user, `user item item ...`, separated by blanks or tabs. Lines with a user
// and no item, blank lines, trailing blanks, CRLF and repeated users are accepted. Throws DataError otherwise.
TextInteractions parse_text(const std::string& path);

// Merges lines of the same user, sorts each row and drops repeated items. `line_ends` has one entry a line.
Csr build_csr(const int32_t* line_users, const int64_t* line_ends, int64_t n_lines, const int32_t* items,
              int64_t n_users);

// Splits each row in (kept, held out). A user of n items holds out floor(n * fraction + U) of them, U uniform in [0, 1),
// and always keeps one. Which ones is a pure function of (seed, user, item).
std::pair<Csr, Csr> hold_out(const int64_t* indptr, const int32_t* items, int64_t n_users, double fraction,
                             uint64_t seed);

// Number of pairs that two CSR matrices over the same users have in common.
int64_t count_common(const int64_t* indptr_a, const int32_t* items_a, const int64_t* indptr_b, const int32_t* items_b,
                     int64_t n_users);

// Throws DataError unless the arrays are a CSR matrix with ascending unique items in [0, n_items).
void check_csr(const int64_t* indptr, int64_t n_users, const int32_t* items, int64_t nnz, int64_t n_items);

}  // namespace recsparse::host
