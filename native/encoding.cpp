#include "encoding.h"

#include <algorithm>
#include <cstring>

namespace lamina {
namespace {

// A level below this is read without prefetching: it stays in the second cache, whose latency the
// processor hides by itself (benchmarks/encodings.py, 2d-2^15).
constexpr size_t kPrefetched = 256 << 10;
constexpr int kFewRows = 8192, kManyRows = 65536;
constexpr int kTurned = 16;  // rows that are moved between levels and rows at a time: whole lines

// Where the columns of one level begin in panels.
template <class E>
struct Columns {
  E* at[4];
  Columns(E* panels, ptrdiff_t stride, int first, int n, int panel) {
    for (int f = 0; f < n; ++f) at[f] = panels + (first + f) / panel * stride + (first + f) % panel;
  }
};

template <class T, int N>
void copy_rows(const T* from, ptrdiff_t from_step, T* to, ptrdiff_t to_step, int rows) {
  for (int r = 0; r < rows; ++r) std::memcpy(to + r * to_step, from + r * from_step, N * sizeof(T));
}
// n adjacent columns of some rows.
template <class T>
void copy_columns(int n, const T* from, ptrdiff_t from_step, T* to, ptrdiff_t to_step, int rows) {
  static constexpr decltype(&copy_rows<T, 1>) by_width[] = {copy_rows<T, 1>, copy_rows<T, 2>,
                                                            copy_rows<T, 3>, copy_rows<T, 4>};
  by_width[n - 1](from, from_step, to, to_step, rows);
}

// body(first row, rows, first column, columns) for pieces of levels that lie side by side
// within a panel.
template <class Body>
void each_piece(int rows, int width, int features, int panel, Body body) {
  const int n = panel % features == 0 ? features : 1;  // three features may straddle two panels
  for (int row = 0; row < rows; row += kTurned)
    for (int c = 0; c < width; c += n) body(row, std::min(kTurned, rows - row), c, n);
}

}  // namespace

template <class T>
Encoding<T>::Encoding(const EncodingSpec& spec, int d_in, const Kernels<T>* kernels)
    : kernels_(kernels), d_(d_in), width_(spec.width) {
  if (spec.kind == EncodingKind::kGrid)
    make_levels(spec);
  else
    make_wave(spec);
}

template <class T>
void Encoding<T>::make_levels(const EncodingSpec& spec) {
  features_ = spec.features;
  low_ = static_cast<T>(spec.low);
  scale_.assign(d_, static_cast<T>(1 / (spec.high - spec.low)));
  int64_t entries = 0;
  for (const GridLevelSpec& s : spec.levels) {
    Level level{static_cast<ptrdiff_t>(entries) * features_, s.entries, s.axis, {}};
    GridArgs<T>& a = level.args;
    a.d = s.axis < 0 ? d_ : 1;
    a.nearest = s.categories > 0;
    // Category x_j lies at u = x_j / (k - 1); a single one everywhere.
    if (a.nearest)
      scale_[s.axis] = s.categories > 1 ? T(1) / static_cast<T>(s.categories - 1) : T(0);
    a.features = features_;
    a.resolution = s.resolution;
    a.hashed = s.hashed;
    const uint32_t primes[3] = {1u, 2654435761u, 805459861u};  // Mueller et al. 2022, eq. 4
    uint32_t step = 1;
    for (int j = 0; j < a.d; ++j, step *= static_cast<uint32_t>(s.resolution) + 1)
      a.factor[j] = s.hashed ? primes[j] : step;
    a.mask = s.wraps ? static_cast<uint32_t>(s.entries - 1) : ~0u;
    a.smooth = spec.smooth;
    a.prefetch = static_cast<size_t>(s.entries) * features_ * sizeof(T) >= kPrefetched;
    a.scale = scale_[std::max(s.axis, 0)];
    a.x_stride = d_;
    flops_ += 8 << a.d;  // as long as so many multiplications
    entries += s.entries;
    levels_.push_back(level);
  }
  table_ = Aligned<T>(static_cast<size_t>(entries) * features_);
}

template <class T>
void Encoding<T>::make_wave(const EncodingSpec& spec) {
  wave_ = spec.kind == EncodingKind::kBlob ? kBlob : kSinusoid;
  n_copied_ = spec.n_copied;
  columns_ = panels_of(width_, P) * P;
  offset_ = Aligned<T>(columns_);
  for (int c = 0; c < width_; ++c) offset_.data()[c] = static_cast<T>(spec.offset[c]);
  const int axes = spec.axis.empty() ? d_ : 1;
  factor_ = Aligned<T>(static_cast<size_t>(axes) * columns_);
  for (int j = 0; j < axes; ++j)
    for (int c = 0; c < width_; ++c)
      factor_.data()[j * columns_ + c] =
          static_cast<T>(spec.factor[static_cast<size_t>(j) * width_ + c]);
  if (!spec.axis.empty()) {
    axis_ = spec.axis;
    axis_.resize(columns_, 0);
  }
  flops_ = 40.0 * columns_ + 2.0 * axes * columns_;
}

template <class T>
GridArgs<T> Encoding<T>::at(int level, const T* u, ptrdiff_t u_stride, int rows) const {
  GridArgs<T> a = levels_[level].args;
  a.u = u + std::max(levels_[level].axis, 0) * u_stride;
  a.u_stride = u_stride;
  a.rows = rows;
  return a;
}
// The derivative that a level's kernel takes, which counts the coordinates the level reads.
template <class T>
int Encoding<T>::inner_derivative(int level, int derivative) const {
  const int axis = levels_[level].axis;
  if (axis < 0 || derivative < 0) return derivative;
  return derivative == axis ? 0 : kElsewhere;
}
template <class T>
WaveArgs<T> Encoding<T>::wave(const T* raw, int row0, int rows) const {
  return {wave_,
          d_,
          columns_,
          n_copied_,
          axis_.empty() ? nullptr : axis_.data(),
          factor_.data(),
          offset_.data(),
          raw + static_cast<ptrdiff_t>(row0) * d_,
          rows};
}

// Grids read their coordinates axis by axis, waves row by row.
template <class T>
void Encoding<T>::load(const T* x, const int32_t* index, int rows, T* raw, int capacity,
                       int row0) const {
  constexpr int kAhead = 16;
  const ptrdiff_t row_step = grid() ? 1 : d_, axis_step = grid() ? capacity : 1;
  T* to = raw + row0 * row_step;
  for (int r = 0; r < rows; ++r, to += row_step) {
    if (index && r + kAhead < rows)
      __builtin_prefetch(x + static_cast<ptrdiff_t>(index[r + kAhead]) * d_);
    const T* from = x + (index ? index[r] : static_cast<ptrdiff_t>(r)) * d_;
    if (grid())
      for (int j = 0; j < d_; ++j) to[j * axis_step] = (from[j] - low_) * scale_[j];
    else
      std::copy_n(from, d_, to);
  }
}

template <class T>
void Encoding<T>::look_up_level(int level, int derivative, const T* u, ptrdiff_t u_stride, int rows,
                                T* const* column, ptrdiff_t step) const {
  const int inner = inner_derivative(level, derivative);
  if (inner != kElsewhere)
    return kernels_->grid_forward(at(level, u, u_stride, rows), inner,
                                  table() + levels_[level].offset, column, step);
  for (int f = 0; f < features_; ++f)
    for (int r = 0; r < rows; ++r) column[f][r * step] = 0;
}

template <class T>
void Encoding<T>::derive(const Axes& by, const T* raw, int capacity, int row0, int rows, T* panels,
                         ptrdiff_t stride) const {
  if (!grid())
    return kernels_->wave_forward(wave(raw, row0, rows), by.order, by.axis, panels, stride);
  if (by.order > 1) return derive_higher(by, raw, capacity, row0, rows, panels, stride);
  const int derivative = by.order == 0 ? -1 : by.axis[0];
  for (int l = 0; l < n_levels(); ++l) {
    const Columns<T> columns(panels, stride, l * features_, features_, P);
    look_up_level(l, derivative, raw + row0, capacity, rows, columns.at, P);
  }
}

template <class T>
void Encoding<T>::input_gradient(const T* raw, int capacity, int row0, int rows, const T* g,
                                 ptrdiff_t stride, T* grad_x) const {
  std::fill_n(grad_x, static_cast<size_t>(rows) * d_, T(0));
  if (!grid()) return kernels_->wave_input(wave(raw, row0, rows), g, stride, grad_x);
  for (int l = 0; l < n_levels(); ++l) {
    const Columns<const T> columns(g, stride, l * features_, features_, P);
    kernels_->grid_input(at(l, raw + row0, capacity, rows), table() + levels_[l].offset, columns.at,
                         P, grad_x + std::max(levels_[l].axis, 0));
  }
}

template <class T>
KeptRows<T>::KeptRows(const Encoding<T>& e, int64_t rows, int n_streams)
    : capacity((rows + 15) / 16 * 16 + 16),
      streams(n_streams),
      u(static_cast<size_t>(capacity) * e.d_in()),
      features(static_cast<size_t>(capacity) * e.width() * n_streams) {}

template <class T>
LevelGradient<T>::LevelGradient(const Encoding<T>& e)
    : gradient(static_cast<size_t>(e.largest_level())),
      touched(static_cast<size_t>(e.largest_level()) / kTableGroup) {}

template <class T>
ptrdiff_t Encoding<T>::largest_level() const {
  int64_t entries = 0;
  for (const Level& l : levels_) entries = std::max(entries, l.entries);
  return static_cast<ptrdiff_t>(entries) * features_;
}

template <class T>
int64_t Encoding<T>::window_rows() const {
  return largest_level() * sizeof(T) > kPrefetched ? kManyRows : kFewRows;
}

template <class T>
void Encoding<T>::look_up(int derivative, KeptRows<T>& kept, int64_t first, int rows) const {
  for (int l = 0; l < n_levels(); ++l) {
    T* h = kept.features.data() + (l * kept.capacity + first) * features_;
    T* columns[4] = {h, h + 1, h + 2, h + 3};
    look_up_level(l, derivative, kept.u.data() + first, kept.capacity, rows, columns, features_);
  }
}

template <class T>
void Encoding<T>::lay_out(const KeptRows<T>& kept, int64_t at, int rows, T* h, ptrdiff_t row_step,
                          ptrdiff_t panel_step) const {
  each_piece(rows, width_, features_, P, [&](int row, int n_rows, int c, int n) {
    const int64_t from = (c / features_ * kept.capacity + at + row) * features_ + c % features_;
    copy_columns(n, kept.features.data() + from, features_,
                 h + c / P * panel_step + row * row_step + c % P, row_step, n_rows);
  });
}

template <class T>
void Encoding<T>::keep(const T* g, ptrdiff_t row_step, ptrdiff_t panel_step, int rows,
                       KeptRows<T>& kept, int64_t at, int stream) const {
  const int64_t level0 = static_cast<int64_t>(stream) * n_levels();
  each_piece(rows, width_, features_, P, [&](int row, int n_rows, int c, int n) {
    const int64_t level = level0 + c / features_;
    const int64_t to = (level * kept.capacity + at + row) * features_ + c % features_;
    copy_columns(n, g + c / P * panel_step + row * row_step + c % P, row_step,
                 kept.features.data() + to, features_, n_rows);
  });
}

template <class T>
void Encoding<T>::scatter(int level, int derivative, const KeptRows<T>& kept, int rows, T* gradient,
                          uint8_t* touched, int stream) const {
  const int inner = inner_derivative(level, derivative);
  if (inner == kElsewhere) return;
  const int64_t place = static_cast<int64_t>(stream) * n_levels() + level;
  const T* g = kept.features.data() + place * kept.capacity * features_;
  const T* columns[4] = {g, g + 1, g + 2, g + 3};
  kernels_->grid_scatter(at(level, kept.u.data(), kept.capacity, rows), inner, columns, features_,
                         gradient, touched);
}

template <class T>
void Encoding<T>::scatter_streams(int level, const T* curvature, const KeptRows<T>& kept, int rows,
                                  T* gradient, uint8_t* touched) const {
  scatter(level, -1, kept, rows, gradient, touched);
  if (kept.streams == 1) return;
  for (int j = 0; j < d_; ++j) scatter(level, j, kept, rows, gradient, touched, 1 + j);
  for (int j = 0; curvature && j < d_; ++j)
    scatter_higher(level, Axes{2, {j, j}}, curvature[j], kept, rows, gradient, touched, 1 + d_);
}

template <class T>
void Encoding<T>::update(int level, const KeptRows<T>& kept, int rows, LevelGradient<T>& own, T* m,
                         T* v, const StepCoefficients& c, bool adam) {
  const Level& l = levels_[level];
  // Where the batch reaches most groups anyway, marking them costs more than it saves; and a
  // velocity moves entries that have no gradient.
  const bool few = (static_cast<int64_t>(rows) << l.args.d) < l.entries;
  const bool all = !few || (!adam && c.beta_1 != 0);
  uint8_t* touched = all ? nullptr : own.touched.data();
  scatter_streams(level, nullptr, kept, rows, own.gradient.data(), touched);
  step(level, own.gradient.data(), touched, m, v, c, adam);
}

template <class T>
void Encoding<T>::step(int level, T* gradient, uint8_t* touched, T* m, T* v,
                       const StepCoefficients& c, bool adam) {
  const Level& l = levels_[level];
  TableStepArgs<T> a{};
  a.w = table() + l.offset;
  a.m = m && (adam || c.beta_1 != 0) ? m + l.offset : nullptr;
  a.v = adam ? v + l.offset : nullptr;
  a.gradient = gradient;
  a.touched = touched;
  a.n_groups = static_cast<ptrdiff_t>(l.entries / kTableGroup);
  a.features = features_;
  (adam ? kernels_->table_adam : kernels_->table_sgd)(a, c);
}

template struct KeptRows<float>;
template struct KeptRows<double>;
template struct LevelGradient<float>;
template struct LevelGradient<double>;
template class Encoding<float>;
template class Encoding<double>;

}  // namespace lamina
