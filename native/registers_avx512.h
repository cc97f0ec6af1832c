// What the three files for AVX-512 registers tell the kernels' sources (kernels_impl.h): 64-byte
// vectors, 32 of them; a 14 x 2 tile holds 28 sums, two weight loads and the broadcast.
#pragma once
#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))
#define LAMINA_VBYTES 64
#define LAMINA_MR 14
#define LAMINA_NV 2
#define LAMINA_KEEP(x) asm("" : "+v"(x))
