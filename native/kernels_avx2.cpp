// 32-byte vectors, 16 registers: a 6 x 2 tile leaves room for two weight loads and the broadcast.
#include <immintrin.h>

#include "kernels.h"

#define INLINE static inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))
#define LAMINA_VBYTES 32
#define LAMINA_MR 6
#define LAMINA_NV 2
#define LAMINA_KEEP(x) asm("" : "+x"(x))

namespace lamina {
namespace isa_avx2 {
namespace {
#include "vmath.h"
INLINE V<float> inverse_root_plus(V<float> a, float epsilon) {
  return 1.0f / (reinterpret_cast<V<float>>(_mm256_sqrt_ps(reinterpret_cast<__m256>(a))) + epsilon);
}
INLINE V<double> inverse_root_plus(V<double> a, double epsilon) {
  return 1.0 /
         (reinterpret_cast<V<double>>(_mm256_sqrt_pd(reinterpret_cast<__m256d>(a))) + epsilon);
}
#include "kernels_impl.h"
#include "kernels_inputs.h"
#include "kernels_pointwise.h"
#include "kernels_second.h"
#include "kernels_step.h"
}  // namespace
}  // namespace isa_avx2

extern const KernelSet kernels_avx2;
const KernelSet kernels_avx2 = {"avx2", &isa_avx2::table_f32, &isa_avx2::table_f64};
}  // namespace lamina
