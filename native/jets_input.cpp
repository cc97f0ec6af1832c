// Where streams begin and end: x with unit vectors as tangents, or an encoding with its
// derivatives.
#include <algorithm>

#include "jets.h"

namespace lamina {

template <class T>
void Jets<T>::load(const T* x, const int32_t* index, int rows, int first, const T* directions) {
  along = directions;
  first_ = first;
  if (a.encoding) return encode(x, index, rows);
  T* value = h[0].data();
  const ptrdiff_t count = static_cast<ptrdiff_t>(rows) * P;
  a.kernels->gather(x, a.d_in, index, rows, value, stride);
  if (along) return a.kernels->gather(along, a.d_in, nullptr, rows, value + count, stride);
  if (rows == loaded_rows_) return;  // `first` never changes in the life of these buffers
  loaded_rows_ = rows;
  for (int p = 0; p < panels_of(a.d_in, P); ++p)
    std::fill_n(value + p * stride + count, count * (streams - 1), T(0));
  for (int j = 0; j < n_tangents; ++j)
    for (int r = 0; r < rows; ++r) *at(h, 0, 1 + j, r, rows, first + j) = T(1);
}

template <class T>
std::vector<typename Jets<T>::Term> Jets<T>::terms(int stream) const {
  std::vector<Term> sum;
  if (stream == 0) return {{Axes{}, T(1), -1}};
  if (stream > n_tangents) {
    for (int j = 0; j < n_tangents; ++j)
      sum.push_back({Axes{}.along(first_ + j).along(first_ + j), curvature[j], -1});
  } else if (along) {
    for (int j = 0; j < a.d_in; ++j) sum.push_back({Axes{}.along(j), T(1), j});
  } else {
    sum.push_back({Axes{}.along(first_ + stream - 1), T(1), -1});
  }
  return sum;
}

template <class T>
void Jets<T>::derive(const Axes& by, int rows, T* panels, ptrdiff_t panel_stride) const {
  a.encoding->derive(by, raw.data(), capacity, 0, rows, panels, panel_stride);
}

template <class T>
void Jets<T>::encode(const T* x, const int32_t* index, int rows) {
  const ptrdiff_t count = static_cast<ptrdiff_t>(rows) * P;
  const ptrdiff_t scratch_stride = static_cast<ptrdiff_t>(capacity) * P;
  a.encoding->load(x, index, rows, raw.data(), capacity, 0);
  for (int s = 0; s < streams; ++s) {
    T* to = h[0].data() + s * count;
    const std::vector<Term> sum = terms(s);
    if (s <= n_tangents && !(s > 0 && along)) {
      derive(sum[0].by, rows, to, stride);
      continue;
    }
    const int panels = panels_of(a.dims[0], P);
    for (int p = 0; p < panels; ++p) std::fill_n(to + p * stride, count, T(0));
    for (const Term& term : sum) {
      derive(term.by, rows, scratch.data(), scratch_stride);
      for (int p = 0; p < panels; ++p)
        for (int r = 0; r < rows; ++r) {
          const T weight = term.weight *
                           (term.j < 0 ? T(1) : along[static_cast<ptrdiff_t>(r) * a.d_in + term.j]);
          T* into = to + p * stride + static_cast<ptrdiff_t>(r) * P;
          const T* from = scratch.data() + p * scratch_stride + static_cast<ptrdiff_t>(r) * P;
          for (int c = 0; c < P; ++c) into[c] += weight * from[c];
        }
    }
  }
}

// d loss / d x_k is the sum over streams of <delta of the stream, d stream / d x_k>.
template <class T>
void Jets<T>::input_gradient(int rows, T* grad_x) {
  if (!a.encoding) return copy_out(delta, 0, 0, rows, grad_x, a.d_in, 1);
  const ptrdiff_t count = static_cast<ptrdiff_t>(rows) * P;
  const ptrdiff_t scratch_stride = static_cast<ptrdiff_t>(capacity) * P;
  a.encoding->input_gradient(raw.data(), capacity, 0, rows, delta[0].data(), stride, grad_x);
  for (int s = 1; s < streams; ++s)
    for (const Term& term : terms(s))
      for (int k = 0; k < a.d_in; ++k) {
        derive(term.by.along(k), rows, scratch.data(), scratch_stride);
        for (int r = 0; r < rows; ++r) {
          T dot = 0;
          for (int c = 0; c < a.dims[0]; c += P) {
            const ptrdiff_t row = static_cast<ptrdiff_t>(r) * P;
            const T* g = delta[0].data() + c / P * stride + s * count + row;
            const T* d = scratch.data() + c / P * scratch_stride + row;
            for (int i = 0; i < std::min(P, a.dims[0] - c); ++i) dot += g[i] * d[i];
          }
          const ptrdiff_t row = static_cast<ptrdiff_t>(r) * a.d_in;
          grad_x[row + k] += term.weight * (term.j < 0 ? T(1) : along[row + term.j]) * dot;
        }
      }
}

template <class T>
void Jets<T>::keep(KeptRows<T>& kept, int rows, int64_t to) const {
  for (int j = 0; j < a.d_in; ++j)
    std::copy_n(raw.data() + static_cast<ptrdiff_t>(j) * capacity, rows,
                kept.u.data() + j * kept.capacity + to);
  for (int s = 0; s < streams; ++s)
    a.encoding->keep(delta[0].data() + static_cast<ptrdiff_t>(s) * rows * P, P, stride, rows, kept,
                     to, s);
}

#define LAMINA_INSTANTIATE(T)                                                \
  template void Jets<T>::load(const T*, const int32_t*, int, int, const T*); \
  template std::vector<typename Jets<T>::Term> Jets<T>::terms(int) const;    \
  template void Jets<T>::derive(const Axes&, int, T*, ptrdiff_t) const;      \
  template void Jets<T>::encode(const T*, const int32_t*, int);              \
  template void Jets<T>::input_gradient(int, T*);                            \
  template void Jets<T>::keep(KeptRows<T>&, int, int64_t) const;
LAMINA_INSTANTIATE(float)
LAMINA_INSTANTIATE(double)

}  // namespace lamina
