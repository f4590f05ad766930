// Kernels that only move memory: the roofs that the benchmark compares the ops with. One thread each; the caller cuts.
#pragma once

#include <cstdint>

namespace recsparse::cpu {

// Copies with stores that bypass the cache where the CPU has them. Both pointers 16-byte aligned, nbytes % 16 == 0.
void ceiling_copy(void* dst, const void* src, int64_t nbytes);

// Reads nbytes (a multiple of 8) and returns their sum, so that the reads cannot be dropped.
uint64_t ceiling_read(const void* src, int64_t nbytes);

// Touches every cache line of the lines ids[0..n) of `line_bytes` (a multiple of 64) each, and returns a sum. Lines are
// prefetched `ahead_ids` ids before they are read: which distance is best depends on the machine and on the line.
uint64_t ceiling_gather(const uint8_t* table, const int64_t* ids, int64_t n, int64_t line_bytes, int64_t ahead_ids);

}  // namespace recsparse::cpu
