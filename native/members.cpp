// Networks that share their weights, in the way of BatchEnsemble (Wen et al. 2020,
// arXiv:2002.06715, eq. 5): member i multiplies a layer's input by r_i and its product by s_i and
// adds b_i,
//   u = h * r_i,  z = (u W^T) * s_i + b_i.
// A block's rows pass through all members: buffers hold [panel][member][row][kPanel], so that one
// product with the weights serves all of them while a panel of weights is in cache.
#include "layout.h"
#include "threads.h"

namespace lamina {

template <class T>
void Layout<T>::member_forward(Buffers<T>& b, Part<T>& part, int rows, const DropoutKey* dropout,
                               uint64_t first_row) const {
  alignas(64) static const T zero[P] = {};
  const int k = members, all = k * rows;
  const ptrdiff_t step = static_cast<ptrdiff_t>(rows) * P;  // from member to member
  for (int l = 1; l <= depth; ++l) {
    const Layer<T>& a = layer(l);
    const T* vectors = a.bias.data();
    for (int q = 0; q < a.in_panels; ++q) {
      T* u = b.u[l - 1].data() + q * b.stride;
      const T* h = b.h[l - 1].data() + q * b.stride;
      for (int i = 0; i < k; ++i)  // x is the same for all
        kernels->affine(h + (l > 1 ? i * step : 0), vectors + a.input_scale_of(i, k) + q * P,
                        nullptr, rows, u + i * step);
      part.pointers[q] = u;
    }
    if (a.thin)
      kernels->thin_forward(part.pointers.data(), a.in_widths.data(), a.in_panels, a.wt.data(),
                            a.transposed(1, 0), all, a.d_out, zero, b.product[l].data());
    for (int p = 0; p < a.out_panels; ++p) {
      T* product = b.product[l].data() + p * b.stride;
      T* h = b.h[l].data() + p * b.stride;
      if (!a.thin) {
        GemmArgs<T> g{};
        g.x = part.pointers.data();
        g.widths = a.in_widths.data();
        g.n_panels = a.in_panels;
        g.w = a.w.data() + a.tile(p, 0);
        g.rows = all;
        g.columns = a.out_widths[p];
        g.y = product;
        kernels->gemm(g);
      }
      for (int i = 0; i < k; ++i)
        kernels->affine(product + i * step, vectors + a.scale_of(i, k) + p * P,
                        vectors + a.shift_of(i) + p * P, rows, h + i * step);
      if (l == depth) continue;
      T* slope = b.backward && a.needs_slope ? b.slope[l].data() + p * b.stride : nullptr;
      if (a.activation != kIdentity || slope) kernels->activate(a.activation, h, slope, k * step);
      if (!dropout || a.dropout == 0) continue;
      for (int i = 0; i < k; ++i)
        kernels->dropout(h + i * step, slope ? slope + i * step : nullptr, rows, first_row,
                         static_cast<uint32_t>(p * P),
                         dropout->of_layer(l) ^ (0xd1342543de82ef95ull * (i + 1ull)), a.dropout);
    }
  }
}

// delta_L stands in h[L]. A layer's delta is d loss / d h, then d loss / d z, then that of the
// product.
template <class T>
void Layout<T>::member_backward(Buffers<T>& b, Part<T>& part, int rows, bool gradients,
                                bool accumulate) const {
  const int k = members, all = k * rows;
  const ptrdiff_t step = static_cast<ptrdiff_t>(rows) * P;
  for (int l = depth; l >= 1; --l) {
    const Layer<T>& a = layer(l);
    const T* vectors = a.bias.data();
    T* sums = part.bias_gradient[l - 1].data();
    T* delta = (l == depth ? b.h[l] : b.delta[l]).data();
    for (int p = 0; p < a.out_panels; ++p) {
      T* d = delta + p * b.stride;
      const T* side = (a.finish == kMulByD ? b.slope[l] : b.h[l]).data() + p * b.stride;
      for (int i = 0; i < k; ++i) {
        if (l < depth)
          kernels->finish_delta(d + i * step, a.finish, side + i * step, rows,
                                sums + a.shift_of(i) + p * P);
        kernels->affine_back(d + i * step, b.product[l].data() + p * b.stride + i * step,
                             vectors + a.scale_of(i, k) + p * P, rows,
                             sums + a.scale_of(i, k) + p * P);
      }
      part.pointers[p] = d;
    }
    auto tile = a.thin ? kernels->thin_gradient_tile : kernels->gradient_tile;
    if (gradients)
      for (int p = 0; p < a.out_panels; ++p)
        for (int q = 0; q < a.in_panels; ++q)
          tile(b.u[l - 1].data() + q * b.stride, part.pointers[p], all, a.in_widths[q],
               a.out_widths[p], part.gradient[l - 1].data() + a.tile(p, q), accumulate);
    for (int q = 0; q < a.in_panels; ++q) {
      GemmArgs<T> g{};
      g.x = part.pointers.data();
      g.widths = a.out_widths.data();
      g.n_panels = a.out_panels;
      g.w = a.wt.data() + a.transposed(q, 0);
      g.rows = all;
      g.columns = a.in_widths[q];
      g.y = b.delta[l - 1].data() + q * b.stride;
      kernels->gemm(g);
      const T* h = b.h[l - 1].data() + q * b.stride;
      for (int i = 0; i < k; ++i)
        kernels->affine_back(g.y + i * step, h + (l > 1 ? i * step : 0),
                             vectors + a.input_scale_of(i, k) + q * P, rows,
                             sums + a.input_scale_of(i, k) + q * P);
    }
  }
}

template <class T>
void member_outputs(const Layout<T>& a, const T* x, int64_t n, T* out, int n_threads,
                    const Poll& poll) {
  constexpr int P = kPanel<T>;
  const int d_out = a.dims.back(), block = a.block_rows;
  auto lanes = borrow_all(a, n_threads, n, false);
  Watch watch(poll);
  std::atomic<int64_t> next{0};
  run_team(n_threads, [&](int thread) {
    Lane<T>& lane = *lanes[thread];
    Buffers<T>& b = lane.buffers;
    for (int64_t row; (row = next.fetch_add(block)) < n && !watch.stopped();) {
      const int rows = static_cast<int>(std::min<int64_t>(block, n - row));
      a.load_rows(b, x + row * a.d_in, nullptr, 0, rows);
      a.member_forward(b, lane.part, rows, nullptr, 0);
      T* h = b.h[a.depth].data();
      a.kernels->output(a.output, h, b.stride, a.members * rows, d_out);
      for (int i = 0; i < a.members; ++i, h += static_cast<ptrdiff_t>(rows) * P)
        for (int r = 0; r < rows; ++r)
          for (int c = 0; c < d_out; c += P)
            std::copy_n(h + c / P * b.stride + static_cast<ptrdiff_t>(r) * P,
                        std::min(P, d_out - c), out + (i * n + row + r) * d_out + c);
      if (thread == 0) watch.check();
    }
  });
  return_all(a, lanes);
  if (watch.stopped()) throw Interrupted();
}

#define LAMINA_INSTANTIATE(T)                                                                      \
  template void Layout<T>::member_forward(Buffers<T>&, Part<T>&, int, const DropoutKey*, uint64_t) \
      const;                                                                                       \
  template void member_outputs<T>(const Layout<T>&, const T*, int64_t, T*, int, const Poll&);      \
  template void Layout<T>::member_backward(Buffers<T>&, Part<T>&, int, bool, bool) const;
LAMINA_INSTANTIATE(float)
LAMINA_INSTANTIATE(double)

}  // namespace lamina
