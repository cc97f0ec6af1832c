// The portable build of the kernels: 16-byte vectors, lowered by the compiler to whatever the
// baseline offers.

#include "kernels.h"

#define INLINE static inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))
#define LAMINA_VBYTES 16
#define LAMINA_MR 6
#define LAMINA_NV 2
#define LAMINA_KEEP(x) (void)(x)

namespace lamina {
namespace isa_scalar {
namespace {
#include "vmath.h"
template <class W, class T>
INLINE W inverse_root_plus(W a, T epsilon) {
  W y;
  for (unsigned i = 0; i < sizeof(W) / sizeof(T); ++i) {
    if constexpr (sizeof(T) == 4)
      y[i] = 1 / (__builtin_sqrtf(a[i]) + epsilon);
    else
      y[i] = 1 / (__builtin_sqrt(a[i]) + epsilon);
  }
  return y;
}
#include "kernels_impl.h"
#include "kernels_inputs.h"
#include "kernels_pointwise.h"
#include "kernels_second.h"
#include "kernels_step.h"
}  // namespace
}  // namespace isa_scalar

extern const KernelSet kernels_scalar;
const KernelSet kernels_scalar = {"scalar", &isa_scalar::table_f32, &isa_scalar::table_f64};
}  // namespace lamina
