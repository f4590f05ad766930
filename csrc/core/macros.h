// Qualifiers shared by g++ and nvcc.
//
// Everything under csrc/core is included by translation units compiled for different instruction sets. A plain `inline`
// function would be merged by the linker into one weak copy, which may be the AVX-512 one: an illegal instruction on an
// older CPU. RS_INLINE therefore never leaves a symbol behind.
#pragma once

#if defined(__CUDACC__)
#define RS_INLINE static __host__ __device__ __forceinline__
#define RS_INLINE_MEMBER __host__ __device__ __forceinline__
#else
#define RS_INLINE static inline __attribute__((always_inline))
#define RS_INLINE_MEMBER inline __attribute__((always_inline))
#endif
