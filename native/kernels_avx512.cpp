// 64-byte vectors, 32 registers: a 14 x 2 tile holds 28 sums, two weight loads and the broadcast.
#include "kernels.h"
#include "registers_avx512.h"

namespace lamina {
namespace isa_avx512 {
namespace {
#include "vmath.h"
// Square root and division at full precision cost 30 cycles a register; the 14-bit estimates with
// one Newton step each cost 8 and stay below 3 ULP. a + tiny keeps 0 * inf away; sqrt(tiny) is far
// below any useful epsilon.
INLINE V<float> inverse_root_plus(V<float> a, float epsilon) {
  a = a + 1e-36f;
  V<float> r =
      reinterpret_cast<V<float>>(_mm512_maskz_rsqrt14_ps(0xffff, reinterpret_cast<__m512>(a)));
  r = r * (1.5f - 0.5f * a * r * r);
  const V<float> d = a * r + epsilon;
  const V<float> q =
      reinterpret_cast<V<float>>(_mm512_maskz_rcp14_ps(0xffff, reinterpret_cast<__m512>(d)));
  return q * (2.0f - d * q);
}
INLINE V<double> inverse_root_plus(V<double> a, double epsilon) {
  return 1.0 /
         (reinterpret_cast<V<double>>(_mm512_maskz_sqrt_pd(0xff, reinterpret_cast<__m512d>(a))) +
          epsilon);
}
#include "kernels_impl.h"
#include "kernels_inputs.h"
#include "kernels_pointwise.h"
#include "kernels_second.h"
#include "kernels_step.h"
}  // namespace
}  // namespace isa_avx512

extern const KernelSet kernels_avx512;
const KernelSet kernels_avx512 = {"avx512", &isa_avx512::table_f32, &isa_avx512::table_f64};
}  // namespace lamina
