// Second and third derivatives of a grid's features by x, mixed ones included, and their way back
// to the table; levels that read one coordinate have none. Only curvature and gradients of
// derivatives need them, so plain loops will do; tests hold them to PyTorch.
#include "encoding.h"

namespace lamina {
namespace {

// d^order s / d x^order of the weight s of a cell's far wall, f the position inside the cell.
template <class T>
T wall(bool smooth, int order, T f, T a_unit) {
  switch (order) {
    case 0:
      return smooth ? f * f * (T(3) - T(2) * f) : f;
    case 1:
      return (smooth ? T(6) * f * (T(1) - f) : T(1)) * a_unit;
    case 2:
      return smooth ? (T(6) - T(12) * f) * a_unit * a_unit : T(0);
    default:
      return smooth ? T(-12) * a_unit * a_unit * a_unit : T(0);
  }
}

// body(entry, weight) for the 2^d corners around a row; as find_corners of kernels_inputs.h.
template <class T, class Body>
void each_corner(const GridArgs<T>& a, const Axes& by, int row, Body body) {
  uint32_t term[3][2];
  T weight[3][2];
  for (int d = 0; d < a.d; ++d) {
    const T u = a.u[d * a.u_stride + row];
    const T inside = u > 0 ? (u < 1 ? u : T(1)) : T(0);
    const T position = inside * static_cast<T>(a.resolution);
    const int cell = std::min(static_cast<int>(position), a.resolution - 1);
    int order = 0;
    for (int i = 0; i < by.order; ++i) order += by.axis[i] == d;
    T far = wall<T>(a.smooth, order, position - static_cast<T>(cell),
                    static_cast<T>(a.resolution) * a.scale);
    if (order > 0 && (u < 0 || u > 1)) far = 0;  // constant beyond the bounds
    if (!(u == u)) far = u;
    weight[d][1] = far;
    weight[d][0] = order == 0 ? T(1) - far : -far;
    term[d][0] = static_cast<uint32_t>(cell) * a.factor[d];
    term[d][1] = term[d][0] + a.factor[d];
  }
  for (int c = 0; c < 1 << a.d; ++c) {
    uint32_t index = 0;
    T w = 1;
    for (int d = 0; d < a.d; ++d) {
      const uint32_t t = term[d][c >> d & 1];
      index = a.hashed ? index ^ t : index + t;
      w *= weight[d][c >> d & 1];
    }
    body(index & a.mask, w);
  }
}

}  // namespace

template <class T>
void Encoding<T>::derive_higher(const Axes& by, const T* raw, int capacity, int row0, int rows,
                                T* panels, ptrdiff_t stride) const {
  for (int l = 0; l < n_levels(); ++l) {
    const GridArgs<T> args = at(l, raw + row0, capacity, rows);
    const bool zero = levels_[l].axis >= 0;  // linear in the one coordinate it reads
    const T* table_l = table() + levels_[l].offset;
    for (int r = 0; r < rows; ++r) {
      T sum[4] = {};
      if (!zero)
        each_corner(args, by, r, [&](uint32_t entry, T w) {
          for (int f = 0; f < features_; ++f)
            sum[f] += w * table_l[static_cast<size_t>(entry) * features_ + f];
        });
      for (int f = 0, c = l * features_; f < features_; ++f, ++c)
        panels[c / P * stride + static_cast<ptrdiff_t>(r) * P + c % P] = sum[f];
    }
  }
}

template <class T>
void Encoding<T>::scatter_higher(int level, const Axes& by, T weight, const KeptRows<T>& kept,
                                 int rows, T* gradient, uint8_t* touched, int stream) const {
  if (levels_[level].axis >= 0) return;
  const int64_t at_level = static_cast<int64_t>(stream) * n_levels() + level;
  const T* g = kept.features.data() + at_level * kept.capacity * features_;
  const GridArgs<T> args = at(level, kept.u.data(), kept.capacity, rows);
  for (int r = 0; r < rows; ++r, g += features_)
    each_corner(args, by, r, [&](uint32_t entry, T w) {
      for (int f = 0; f < features_; ++f)
        gradient[static_cast<size_t>(entry) * features_ + f] += weight * w * g[f];
      if (touched) touched[entry / kTableGroup] = 1;
    });
}

#define LAMINA_INSTANTIATE(T)                                                                   \
  template void Encoding<T>::derive_higher(const Axes&, const T*, int, int, int, T*, ptrdiff_t) \
      const;                                                                                    \
  template void Encoding<T>::scatter_higher(int, const Axes&, T, const KeptRows<T>&, int, T*,   \
                                            uint8_t*, int) const;
LAMINA_INSTANTIATE(float)
LAMINA_INSTANTIATE(double)

}  // namespace lamina
