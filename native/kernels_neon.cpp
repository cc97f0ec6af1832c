// 16-byte vectors, 32 registers: a 6 x 4 tile holds 24 sums, four weight loads and the broadcast.
#include <arm_neon.h>

#include "kernels.h"

#define INLINE static inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))
#define LAMINA_VBYTES 16
#define LAMINA_MR 6
#define LAMINA_NV 4
#define LAMINA_KEEP(x) asm("" : "+w"(x))

namespace lamina {
namespace isa_neon {
namespace {
#include "vmath.h"
INLINE V<float> inverse_root_plus(V<float> a, float epsilon) {
  return 1.0f /
         (reinterpret_cast<V<float>>(vsqrtq_f32(reinterpret_cast<float32x4_t>(a))) + epsilon);
}
INLINE V<double> inverse_root_plus(V<double> a, double epsilon) {
  return 1.0 /
         (reinterpret_cast<V<double>>(vsqrtq_f64(reinterpret_cast<float64x2_t>(a))) + epsilon);
}
#include "kernels_impl.h"
#include "kernels_inputs.h"
#include "kernels_pointwise.h"
#include "kernels_second.h"
#include "kernels_step.h"
}  // namespace
}  // namespace isa_neon

extern const KernelSet kernels_neon;
const KernelSet kernels_neon = {"neon", &isa_neon::table_f32, &isa_neon::table_f64};
}  // namespace lamina
