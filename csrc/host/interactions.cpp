#include "host/interactions.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "core/philox.h"

namespace recsparse::host {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 20;

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }
bool is_separator(char c) { return is_blank(c) || c == '\n'; }

class Parser {
 public:
  Parser(const std::string& path, TextInteractions& out) : path_(path), out_(out) {}

  // `begin` .. `end` holds whole tokens only.
  void consume(const char* begin, const char* end) {
    const char* p = begin;
    while (p < end) {
      if (*p == '\n') {
        finish_line();
        ++p;
      } else if (is_blank(*p)) {
        ++p;
      } else {
        const char* token = p;
        int64_t value = 0;
        // Saturates just above the limit: a token of any length is read without overflow.
        while (p < end && *p >= '0' && *p <= '9') value = std::min(value * 10 + (*p++ - '0'), kMaxId + 1);
        if (p < end && !is_separator(*p)) fail_token(token, end);
        if (value > kMaxId)
          fail("huge id " + shown(token, end) + ", ids go up to " + std::to_string(kMaxId) + "; renumber them from 0");
        add(value);
      }
    }
  }

  void finish() {
    finish_line();
    if (out_.items.empty()) throw DataError(path_ + ": no interactions; expected lines of `user item item ...`");
  }

  [[noreturn]] void fail_token(const char* token, const char* end) const {
    const std::string text = shown(token, end);
    if (token + 1 < end && *token == '-' && token[1] >= '0' && token[1] <= '9')
      fail("negative id " + text + "; ids start at 0");
    fail("malformed id '" + text + "'; expected `user item item ...` with whole numbers from 0");
  }

 private:
  void add(int64_t value) {
    if (!in_line_) {
      in_line_ = true;
      out_.line_users.push_back(static_cast<int32_t>(value));
      out_.max_user = std::max(out_.max_user, value);
    } else {
      out_.items.push_back(static_cast<int32_t>(value));
      out_.max_item = std::max(out_.max_item, value);
    }
  }

  void finish_line() {
    if (in_line_) out_.line_ends.push_back(static_cast<int64_t>(out_.items.size()));
    in_line_ = false;
    ++line_;
  }

  [[noreturn]] void fail(const std::string& message) const {
    throw DataError(path_ + ":" + std::to_string(line_) + ": " + message);
  }

  // The token, cut to 24 characters, with unprintable bytes as '?': the message stays one line.
  static std::string shown(const char* token, const char* end) {
    std::string text;
    for (const char* p = token; p < end && !is_separator(*p); ++p) {
      if (text.size() == 24) return text + "...";
      text += (*p >= 32 && *p < 127) ? *p : '?';
    }
    return text;
  }

  const std::string& path_;
  TextInteractions& out_;
  int64_t line_ = 1;
  bool in_line_ = false;
};

struct RowRange {
  int64_t begin;
  int64_t end;
};

RowRange row(const int64_t* indptr, int64_t user) { return {indptr[user], indptr[user + 1]}; }

}  // namespace

TextInteractions parse_text(const std::string& path) {
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), &std::fclose);
  if (!file) throw DataError(path + ": cannot open: " + std::strerror(errno));
  struct stat info{};
  if (fstat(fileno(file.get()), &info) == 0 && S_ISDIR(info.st_mode))
    throw DataError(path + ": is a folder, expected a file");

  TextInteractions out;
  // An id and its separator take two bytes or more, so this capacity is never outgrown; untouched pages cost nothing.
  if (info.st_size > 0) out.items.reserve(static_cast<size_t>(info.st_size) / 2 + 1);
  Parser parser(path, out);
  std::vector<char> buffer(kBufferBytes);
  size_t kept = 0;
  bool first = true;
  for (;;) {
    const size_t got = std::fread(buffer.data() + kept, 1, buffer.size() - kept, file.get());
    if (std::ferror(file.get())) throw DataError(path + ": cannot read: " + std::strerror(errno));
    const char* begin = buffer.data();
    const char* end = begin + kept + got;
    if (first && end - begin >= 3 && std::memcmp(begin, "\xEF\xBB\xBF", 3) == 0) begin += 3;  // UTF-8 byte order mark
    first = false;
    const char* cut = end;
    if (got > 0) {
      while (cut > begin && !is_separator(cut[-1])) --cut;  // an id may go on in the next buffer
      if (cut == begin && end == buffer.data() + buffer.size()) parser.fail_token(begin, end);
    }
    parser.consume(begin, cut);
    if (got == 0) break;
    kept = static_cast<size_t>(end - cut);
    std::memmove(buffer.data(), cut, kept);
  }
  parser.finish();
  return out;
}

Csr build_csr(const int32_t* line_users, const int64_t* line_ends, int64_t n_lines, const int32_t* items,
              int64_t n_users) {
  Csr csr;
  csr.indptr.assign(static_cast<size_t>(n_users) + 1, 0);
  int64_t begin = 0;
  for (int64_t l = 0; l < n_lines; ++l) {
    if (line_users[l] < 0 || line_users[l] >= n_users) throw DataError("user id out of range");
    if (line_ends[l] < begin) throw DataError("line ends must ascend");
    csr.indptr[line_users[l] + 1] += line_ends[l] - begin;
    begin = line_ends[l];
  }
  for (int64_t u = 0; u < n_users; ++u) csr.indptr[u + 1] += csr.indptr[u];
  csr.items.resize(static_cast<size_t>(csr.indptr[n_users]));

  std::vector<int64_t> fill(csr.indptr.begin(), csr.indptr.end() - 1);
  begin = 0;
  for (int64_t l = 0; l < n_lines; ++l) {
    std::copy(items + begin, items + line_ends[l], csr.items.begin() + fill[line_users[l]]);
    fill[line_users[l]] += line_ends[l] - begin;
    begin = line_ends[l];
  }

  int64_t written = 0;
  for (int64_t u = 0; u < n_users; ++u) {
    const auto first = csr.items.begin() + csr.indptr[u];
    const auto last = csr.items.begin() + csr.indptr[u + 1];
    std::sort(first, last);
    const auto end = std::unique(first, last);
    csr.duplicates += last - end;
    csr.indptr[u] = written;  // rows before u are final, rows after it still hold their old start
    written = std::move(first, end, csr.items.begin() + written) - csr.items.begin();
  }
  csr.indptr[n_users] = written;
  csr.items.resize(static_cast<size_t>(written));
  return csr;
}

std::pair<Csr, Csr> hold_out(const int64_t* indptr, const int32_t* items, int64_t n_users, double fraction,
                             uint64_t seed) {
  constexpr uint32_t kCountDraw = UINT32_MAX;  // no item has this id
  std::pair<Csr, Csr> out;
  Csr& kept = out.first;
  Csr& held = out.second;
  kept.indptr.assign(1, 0);
  held.indptr.assign(1, 0);
  std::vector<std::pair<uint64_t, int32_t>> keyed;
  for (int64_t u = 0; u < n_users; ++u) {
    const auto [begin, end] = row(indptr, u);
    const int64_t n = end - begin;
    const Philox4 draw = philox(seed, static_cast<uint64_t>(u), kCountDraw, kStreamSplit);
    const int64_t wanted = static_cast<int64_t>(static_cast<double>(n) * fraction + draw.w[0] * 0x1p-32);
    const int64_t count = std::max<int64_t>(0, std::min(wanted, n - 1));
    keyed.clear();
    for (int64_t k = begin; k < end; ++k) {
      const Philox4 r = philox(seed, static_cast<uint64_t>(u), static_cast<uint32_t>(items[k]), kStreamSplit);
      keyed.emplace_back(uint64_t{r.w[1]} << 32 | r.w[0], items[k]);
    }
    std::nth_element(keyed.begin(), keyed.begin() + count, keyed.end());
    for (int64_t k = 0; k < n; ++k) (k < count ? held : kept).items.push_back(keyed[k].second);
    std::sort(kept.items.begin() + kept.indptr.back(), kept.items.end());
    std::sort(held.items.begin() + held.indptr.back(), held.items.end());
    kept.indptr.push_back(static_cast<int64_t>(kept.items.size()));
    held.indptr.push_back(static_cast<int64_t>(held.items.size()));
  }
  return out;
}

int64_t count_common(const int64_t* indptr_a, const int32_t* items_a, const int64_t* indptr_b, const int32_t* items_b,
                     int64_t n_users) {
  int64_t common = 0;
  for (int64_t u = 0; u < n_users; ++u) {
    auto [a, a_end] = row(indptr_a, u);
    auto [b, b_end] = row(indptr_b, u);
    while (a < a_end && b < b_end) {
      common += items_a[a] == items_b[b];
      const bool step_a = items_a[a] <= items_b[b], step_b = items_b[b] <= items_a[a];
      a += step_a;
      b += step_b;
    }
  }
  return common;
}

void check_csr(const int64_t* indptr, int64_t n_users, const int32_t* items, int64_t nnz, int64_t n_items) {
  if (indptr[0] != 0 || indptr[n_users] != nnz)
    throw DataError("indptr must start at 0 and end at the number of items");
  for (int64_t u = 0; u < n_users; ++u) {
    const auto [begin, end] = row(indptr, u);
    if (end < begin || end > nnz) throw DataError("indptr must ascend, it does not at user " + std::to_string(u));
    for (int64_t k = begin; k < end; ++k) {
      if (items[k] < 0 || items[k] >= n_items) {
        throw DataError("item " + std::to_string(items[k]) + " of user " + std::to_string(u) + " is outside [0, " +
                        std::to_string(n_items) + ")");
      }
      if (k > begin && items[k] <= items[k - 1]) {
        throw DataError("items of user " + std::to_string(u) + " must be ascending and unique");
      }
    }
  }
}

}  // namespace recsparse::host
