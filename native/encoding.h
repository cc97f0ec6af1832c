// Encodings: h_0 as a function of the coordinates x, computed a block of rows at a time straight
// into the panels of h_0.
//
// For whoever needs derivatives of outputs by inputs: `derive` writes a derivative of h_0 by x, up
// to the third, of a block into panels; `keep` and `scatter` carry a gradient that arrives for it
// back into the table, in which it is linear. `input_gradient` is the transpose of all first
// derivatives at once. Grids have their second and third in encoding_higher.cpp.
//
// Where a whole batch is at hand, `locate`, `look_up` and `lay_out` do as `load` and `forward`, but
// level by level over all rows, so that a level is read from afar once and not once a block.
#pragma once
#include <vector>

#include "layout.h"

namespace lamina {

// Derivative along axis[0], ..., axis[order - 1].
struct Axes {
  int order = 0;
  int axis[3] = {};
  Axes along(int j) const {
    Axes more = *this;
    more.axis[more.order++] = j;
    return more;
  }
};

// The rows of one batch, level by level over all rows, so that one owner can walk a level while it
// is in cache, and no two owners share an entry of its gradient. Streams as in jets.h.
template <class T>
struct KeptRows {
  int64_t capacity = 0;  // no power of two, so that levels do not meet in one set of a cache
  int streams = 1;
  Aligned<T> u;         // [axis][capacity]
  Aligned<T> features;  // [stream][level][row][feature]: h_0, then d loss by each stream of it
  KeptRows() = default;
  KeptRows(const Encoding<T>& encoding, int64_t rows, int n_streams = 1);
};

// One owner's gradient of one level, zero between steps, and which groups of it are not.
template <class T>
struct LevelGradient {
  Aligned<T> gradient;
  Aligned<uint8_t> touched;
  LevelGradient() = default;
  explicit LevelGradient(const Encoding<T>& encoding);
};

template <class T>
class Encoding {
 public:
  static constexpr int P = kPanel<T>;
  Encoding(const EncodingSpec& spec, int d_in, const Kernels<T>* kernels);

  int width() const { return width_; }
  int d_in() const { return d_; }
  // Trainable numbers, which end theta; 0 for all but grids.
  int64_t n_params() const { return static_cast<int64_t>(table_.size()); }
  T* table() { return table_.data(); }
  const T* table() const { return table_.data(); }
  double flops_a_row() const { return flops_; }

  // The raw coordinates of rows, held by Buffers::raw (d_in elements a row, `capacity` rows).
  void load(const T* x, const int32_t* index, int rows, T* raw, int capacity, int row0) const;
  void forward(const T* raw, int capacity, int row0, int rows, T* panels, ptrdiff_t stride) const {
    derive({}, raw, capacity, row0, rows, panels, stride);
  }
  void derive(const Axes& by, const T* raw, int capacity, int row0, int rows, T* panels,
              ptrdiff_t stride) const;
  // grad_x (rows, d_in) = d <g, h_0> / d x, g in panels.
  void input_gradient(const T* raw, int capacity, int row0, int rows, const T* g, ptrdiff_t stride,
                      T* grad_x) const;

  // Grids only. Rows [at, at + rows) of `kept`: coordinates, then h_0 (or its tangent by x_j) ...
  void locate(const T* x, const int32_t* index, int rows, KeptRows<T>& kept, int64_t at) const {
    load(x, index, rows, kept.u.data(), static_cast<int>(kept.capacity), static_cast<int>(at));
  }
  void look_up(int derivative, KeptRows<T>& kept, int64_t at, int rows) const;
  // ... to and from rows whose column c stands at [c / P * panel_step + row * row_step + c % P],
  // which is panels as well as a matrix; on the way back d loss by one stream of h_0.
  void lay_out(const KeptRows<T>& kept, int64_t at, int rows, T* h, ptrdiff_t row_step,
               ptrdiff_t panel_step) const;
  void keep(const T* g, ptrdiff_t row_step, ptrdiff_t panel_step, int rows, KeptRows<T>& kept,
            int64_t at, int stream = 0) const;
  // Rows to take level by level, that all levels need not be fetched for too few.
  int64_t window_rows() const;
  int n_levels() const { return static_cast<int>(levels_.size()); }
  ptrdiff_t largest_level() const;  // in elements
  // Every level's owner adds all kept rows, in order, to that level's gradient, which starts at
  // `gradient`; touched marks groups of kTableGroup entries, unless null.
  void scatter(int level, int derivative, const KeptRows<T>& kept, int rows, T* gradient,
               uint8_t* touched, int stream = 0) const;
  // The same of every stream; `curvature` has its weight of each axis, null where it is not kept.
  void scatter_streams(int level, const T* curvature, const KeptRows<T>& kept, int rows,
                       T* gradient, uint8_t* touched) const;
  // Scatter and step of one level, own.gradient zero before and after. Neither decay nor l2: a
  // table's entries are values, not weights.
  void update(int level, const KeptRows<T>& kept, int rows, LevelGradient<T>& own, T* m, T* v,
              const StepCoefficients& coefficients, bool adam);
  // The step of one level on a gradient of its own, which is zero afterwards; touched may be null.
  void step(int level, T* gradient, uint8_t* touched, T* m, T* v,
            const StepCoefficients& coefficients, bool adam);
  ptrdiff_t level_offset(int level) const { return levels_[level].offset; }  // in elements
  ptrdiff_t level_size(int level) const {                                    // in elements
    return static_cast<ptrdiff_t>(levels_[level].entries) * features_;
  }
  bool grid() const { return !levels_.empty(); }

 private:
  struct Level {
    ptrdiff_t offset;  // of its first entry in the table, in elements
    int64_t entries;
    int axis;  // the one coordinate it reads, or -1
    GridArgs<T> args;
  };
  void look_up_level(int level, int derivative, const T* u, ptrdiff_t u_stride, int rows,
                     T* const* column, ptrdiff_t step) const;
  void derive_higher(const Axes& by, const T* raw, int capacity, int row0, int rows, T* panels,
                     ptrdiff_t stride) const;
  void scatter_higher(int level, const Axes& by, T weight, const KeptRows<T>& kept, int rows,
                      T* gradient, uint8_t* touched, int stream) const;
  void make_levels(const EncodingSpec& spec);
  void make_wave(const EncodingSpec& spec);
  static constexpr int kElsewhere = -2;  // by a coordinate that the level does not read
  int inner_derivative(int level, int derivative) const;
  GridArgs<T> at(int level, const T* u, ptrdiff_t u_stride, int rows) const;
  WaveArgs<T> wave(const T* raw, int row0, int rows) const;

  const Kernels<T>* kernels_;
  int d_, width_, features_ = 0;
  double flops_ = 0;
  T low_ = 0;
  std::vector<T> scale_;  // u_j = (x_j - low) * scale_j
  std::vector<Level> levels_;
  Aligned<T> table_;
  Wave wave_ = kSinusoid;
  int columns_ = 0, n_copied_ = 0;
  std::vector<int> axis_;
  Aligned<T> factor_, offset_;
};

}  // namespace lamina
