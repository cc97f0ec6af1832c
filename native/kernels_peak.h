// The fastest this instruction set can multiply and add: what "percent of peak" is a percentage of.
//
// Included by kernels_step.h inside the namespace of one ISA, as kernels_impl.h is. Twelve
// independent sums, all in registers: a fused multiply-add takes 4 cycles and two begin in one, so
// that eight would do; with both factors they fit the 16 registers of AVX2 and SSE without a spill.
template <class T>
double peak(int64_t rounds, T* sink) {
  constexpr int kSums = 12, kUnroll = 4;
  V<T> sums[kSums];
#pragma GCC unroll 12
  for (int i = 0; i < kSums; ++i) sums[i] = splat<T>(static_cast<T>(i + 3));
  // Sums tend to 2 and none begins there: no overflow, no zeros, nothing the compiler could fold.
  V<T> factor = splat<T>(T(0.5)), term = splat<T>(T(1));
  LAMINA_KEEP(factor);
  LAMINA_KEEP(term);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 4
    for (int k = 0; k < kUnroll; ++k)
#pragma GCC unroll 12
      for (int i = 0; i < kSums; ++i) sums[i] = sums[i] * factor + term;
  }
  V<T> total = sums[0];
#pragma GCC unroll 12
  for (int i = 1; i < kSums; ++i) total += sums[i];
  for (int i = 0; i < kLanes<T>; ++i) sink[i] = total[i];
  return 2.0 * kSums * kUnroll * kLanes<T> * static_cast<double>(rounds);
}
