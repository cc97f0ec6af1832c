// Products of bytes in plain loops, for every processor.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels_byte.h"

namespace lamina {
namespace {

void multiply(const ByteProduct& a) {
  constexpr int P = kBytePanel;
  for (int r = 0; r < a.rows; ++r) {
    const uint8_t* x = a.x + r * a.x_stride;
    float* y = a.y + static_cast<ptrdiff_t>(r) * P;
    if (a.bias)
      std::copy_n(a.bias, P, y);
    else
      std::fill_n(y, P, 0.0f);
    for (int g = 0; g * kByteGroup < a.width; ++g) {
      int32_t sum[P];
      std::copy_n(a.offset + static_cast<ptrdiff_t>(g) * P, P, sum);
      const int end = std::min(a.width, (g + 1) * kByteGroup);
      for (int k = g * kByteGroup; k < end; k += 4) {
        const int8_t* w = a.w + static_cast<ptrdiff_t>(k) * P;
        for (int n = 0; n < P; ++n)
          sum[n] += x[k] * w[4 * n] + x[k + 1] * w[4 * n + 1] + x[k + 2] * w[4 * n + 2] +
                    x[k + 3] * w[4 * n + 3];
      }
      const float t = a.scale[r * a.scale_stride + g];
      const float* s = a.w_scale + static_cast<ptrdiff_t>(g) * P;
      for (int n = 0; n < P; ++n) y[n] = std::fma(t * s[n], static_cast<float>(sum[n]), y[n]);
    }
  }
}

void quantise(const ByteRows& a) {
  for (int r = 0; r < a.rows; ++r) {
    const float* x = a.x + (a.index ? a.index[r] : r) * a.row_stride;
    uint8_t* q = a.q + r * a.q_stride;
    auto at = [&](int c) { return x[c / 32 * a.piece_stride + c % 32]; };
    float largest = 0, poison = 0;
    for (int c = 0; c < a.columns; ++c) {
      largest = std::max(largest, std::fabs(at(c)));
      poison += 0.0f * at(c);
    }
    const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
    const bool usable = poison == 0 && inverse <= std::numeric_limits<float>::max();
    a.scale[r * a.scale_stride] = usable ? largest / 127.0f : poison;
    for (int c = 0; c < a.columns; ++c)
      q[c] = static_cast<uint8_t>(128 + (usable ? std::lrintf(at(c) * inverse) : 0));
    std::fill(q + a.columns, q + (a.columns + 63) / 64 * 64, uint8_t{128});
  }
}

}  // namespace

extern const ByteKernels kernels_byte_plain;
const ByteKernels kernels_byte_plain = {"plain", multiply, quantise};

}  // namespace lamina
