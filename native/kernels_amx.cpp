// Products in bfloat16 on AMX: 16 x 16 tiles of float32 sums, 16 x 32 tiles of bfloat16. A block of
// 32 x 32 sums takes four tiles of sums (0..3), two of rows (4, 5) and two of columns (6, 7).
//
// Loading and storing sums, rounding and transposing cost as much as the products of narrow
// layers, so that they are done between the products of the next block: the two run side by side.
//
// The instructions are written out. GCC 12's intrinsics let the compiler drop the stores that fill
// the configuration; the memory clobbers here keep every one. LAMINA_EMULATE_AMX replaces them by
// plain loops, which is how this file is tested on machines without AMX (make amx).
#include <cstring>

#include "kernels_half.h"
#include "registers_avx512.h"

namespace lamina {
namespace isa_amx {
namespace {
#include "vmath.h"
constexpr bool kTurnTransposes = true;
#include "kernels_half_blocks.h"
#include "kernels_impl.h"
#include "kernels_pointwise.h"

#if defined(LAMINA_EMULATE_AMX)
struct Tile {
  float f[16][16];
};
thread_local Tile tiles[8];
float from_bf16(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float f;
  std::memcpy(&f, &wide, 4);
  return f;
}
template <int T>
void tile_load(const void* p, ptrdiff_t stride) {
  for (int r = 0; r < 16; ++r)
    std::memcpy(tiles[T].f[r], static_cast<const char*>(p) + r * stride, 64);
}
template <int T>
void tile_store(void* p, ptrdiff_t stride) {
  for (int r = 0; r < 16; ++r) std::memcpy(static_cast<char*>(p) + r * stride, tiles[T].f[r], 64);
}
template <int T>
void tile_zero() {
  std::memset(&tiles[T], 0, sizeof(Tile));
}
template <int C, int A, int B>
void tile_dot() {
  uint16_t a[16][32], b[16][32];
  std::memcpy(a, &tiles[A], 1024);
  std::memcpy(b, &tiles[B], 1024);
  for (int m = 0; m < 16; ++m)
    for (int k = 0; k < 16; ++k)
      for (int n = 0; n < 16; ++n) {
        tiles[C].f[m][n] += from_bf16(a[m][2 * k]) * from_bf16(b[k][2 * n]);
        tiles[C].f[m][n] += from_bf16(a[m][2 * k + 1]) * from_bf16(b[k][2 * n + 1]);
      }
}
void enter() {}
void leave() {}
#else
template <int T>
INLINE void tile_load(const void* p, ptrdiff_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(stride), "i"(T) : "memory");
}
template <int T>
INLINE void tile_store(void* p, ptrdiff_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(stride), "i"(T) : "memory");
}
template <int T>
INLINE void tile_zero() {
  asm volatile("tilezero %%tmm%c0" : : "i"(T));
}
template <int C, int A, int B>
INLINE void tile_dot() {
  asm volatile("tdpbf16ps %%tmm%c0, %%tmm%c1, %%tmm%c2" : : "i"(B), "i"(A), "i"(C));
}
struct alignas(64) TileConfiguration {
  uint8_t palette, start_row, reserved[14];
  uint16_t bytes_a_row[16];
  uint8_t rows[16];
};
static_assert(sizeof(TileConfiguration) == 64);
void enter() {
  TileConfiguration c;
  std::memset(&c, 0, sizeof c);
  c.palette = 1;
  for (int i = 0; i < 8; ++i) c.bytes_a_row[i] = 64, c.rows[i] = 16;
  asm volatile("ldtilecfg %0" : : "m"(c) : "memory");
}
void leave() { asm volatile("tilerelease" : : : "memory"); }
#endif

template <int Halves>
INLINE void store_sums(float* sums) {
  tile_store<0>(sums, 64);
  tile_store<2>(sums + 512, 64);
  if constexpr (Halves == 2) {
    tile_store<1>(sums + 256, 64);
    tile_store<3>(sums + 768, 64);
  }
}

// The block of rows [row0, row0 + 32) and 16 * Halves columns; `meanwhile` is told after each
// panel how many of them are done.
template <int Halves, class Meanwhile>
INLINE void block_product(const HalfProduct& a, const Bf16* w, const float* bias, int row0,
                          int next_row0, Meanwhile meanwhile) {
  if (bias) {  // a stride of 0 loads one row 16 times
    tile_load<0>(bias, 0);
    tile_load<2>(bias, 0);
    if constexpr (Halves == 2) tile_load<1>(bias + 16, 0), tile_load<3>(bias + 16, 0);
  } else {
    tile_zero<0>();
    tile_zero<2>();
    if constexpr (Halves == 2) tile_zero<1>(), tile_zero<3>();
  }
  for (int panel = 0; panel < a.n_panels; ++panel, w += kHalfTile) {
    const Bf16* x = a.x[panel] + static_cast<ptrdiff_t>(row0) * 32;
    tile_load<4>(x, 64);
    tile_load<6>(w, 64);
    tile_dot<0, 4, 6>();
    tile_load<5>(x + 512, 64);
    tile_dot<2, 5, 6>();
    if constexpr (Halves == 2) {
      tile_load<7>(w + 512, 64);
      tile_dot<1, 4, 7>();
      tile_dot<3, 5, 7>();
    }
    const Bf16* next = a.x[panel] + static_cast<ptrdiff_t>(next_row0) * 32;
#pragma GCC unroll 32
    for (int line = 0; line < 32; ++line) __builtin_prefetch(next + line * 32);
    meanwhile(panel + 1);
  }
}

template <class Piece>
INLINE void all_blocks(const HalfProduct& a, const float* bias, Piece piece) {
  alignas(64) float scratch[2][1024];
  const float* waiting = nullptr;
  int waiting_p = 0, waiting_row = 0, turn = 0;
  each_block(a, [&](int p, int row0) INLINE_LAMBDA {
    float* sums = scratch[turn ^= 1];
    int done = 0;
    auto meanwhile = [&](int panels) INLINE_LAMBDA {
      if (!waiting) return;
      const int until = kHalfPieces * panels / a.n_panels;
      for (; done < until; ++done) piece(waiting, waiting_p, waiting_row, done);
    };
    const Bf16* w = a.w + p * a.w_stride;
    const float* from = bias ? bias + p * 32 : nullptr;
    const int next = row0 + kHalfRows < a.rows ? row0 + kHalfRows : 0;
    if (a.columns - p * 32 > 16) {
      block_product<2>(a, w, from, row0, next, meanwhile);
      store_sums<2>(sums);
    } else {
      block_product<1>(a, w, from, row0, next, meanwhile);
      store_sums<1>(sums);
      std::memset(sums + 256, 0, 1024);
      std::memset(sums + 768, 0, 1024);
    }
    waiting = sums, waiting_p = p, waiting_row = row0;
  });
  if (waiting)
    for (int i = 0; i < kHalfPieces; ++i) piece(waiting, waiting_p, waiting_row, i);
}

#include "kernels_half_impl.h"

// 16 * KHalves x 16 * NHalves of a tile's gradient.
template <int KHalves, int NHalves>
void gradient_halves(const Bf16* x, const Bf16* d, int rows, float* c, bool accumulate) {
  constexpr ptrdiff_t stride = 128;  // bytes of a row of c
  if (accumulate) {
    tile_load<0>(c, stride);
    if constexpr (NHalves == 2) tile_load<1>(c + 16, stride);
    if constexpr (KHalves == 2) tile_load<2>(c + 512, stride);
    if constexpr (KHalves == 2 && NHalves == 2) tile_load<3>(c + 528, stride);
  } else {
    tile_zero<0>();
    if constexpr (NHalves == 2) tile_zero<1>();
    if constexpr (KHalves == 2) tile_zero<2>();
    if constexpr (KHalves == 2 && NHalves == 2) tile_zero<3>();
  }
  for (int row = 0; row < rows; row += kHalfRows, x += kBlock, d += kBlock) {
    tile_load<4>(x, 64);
    tile_load<6>(d, 64);
    tile_dot<0, 4, 6>();
    if constexpr (KHalves == 2) {
      tile_load<5>(x + 512, 64);
      tile_dot<2, 5, 6>();
    }
    if constexpr (NHalves == 2) {
      tile_load<7>(d + 512, 64);
      tile_dot<1, 4, 7>();
      if constexpr (KHalves == 2) tile_dot<3, 5, 7>();
    }
  }
  tile_store<0>(c, stride);
  if constexpr (NHalves == 2) tile_store<1>(c + 16, stride);
  if constexpr (KHalves == 2) tile_store<2>(c + 512, stride);
  if constexpr (KHalves == 2 && NHalves == 2) tile_store<3>(c + 528, stride);
}
void half_gradient_tile(const Bf16* x, const Bf16* d, int rows, int k_columns, int n_columns,
                        float* c, bool accumulate) {
  const bool k2 = k_columns > 16, n2 = n_columns > 16;
  auto kernel = k2 ? (n2 ? gradient_halves<2, 2> : gradient_halves<2, 1>)
                   : (n2 ? gradient_halves<1, 2> : gradient_halves<1, 1>);
  kernel(x, d, rows, c, accumulate);
}

// Four tiles of sums, as many as a block takes, and operands that stay where they are.
double half_peak(int64_t rounds) {
  tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
  tile_zero<4>(), tile_zero<5>(), tile_zero<6>(), tile_zero<7>();
  for (int64_t r = 0; r < rounds; ++r) {
    tile_dot<0, 4, 6>();
    tile_dot<1, 4, 7>();
    tile_dot<2, 5, 6>();
    tile_dot<3, 5, 7>();
  }
  return 4.0 * 2 * 16 * 16 * 32 * static_cast<double>(rounds);
}

}  // namespace
}  // namespace isa_amx

extern const HalfKernels kernels_amx;
const HalfKernels kernels_amx = {"amx",
                                 isa_amx::enter,
                                 isa_amx::leave,
                                 isa_amx::half_forward,
                                 isa_amx::half_backward,
                                 isa_amx::half_raw,
                                 isa_amx::half_gradient_tile,
                                 isa_amx::half_narrow,
                                 isa_amx::half_widen,
                                 isa_amx::half_pack,
                                 isa_amx::half_pack_turned,
                                 isa_amx::half_pack_straight,
                                 isa_amx::half_gather,
                                 isa_amx::half_few_packed,
                                 isa_amx::half_few_turned,
                                 isa_amx::half_few_straight,
                                 isa_amx::half_few_gradient,
                                 isa_amx::half_peak};
}  // namespace lamina
