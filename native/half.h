// Training in bfloat16: what a run keeps beside the float32 layout, and its passes over rows.
// Master weights, moments, sums, losses and bias gradients stay in float32.
#pragma once
#include <vector>

#include "kernels_half.h"
#include "layout.h"

namespace lamina {

inline int half_rows(int rows) { return (rows + kHalfRows - 1) / kHalfRows * kHalfRows; }

// As Buffers, in bfloat16. `wide` has the float32 panels: targets and z_L, and for layers that are
// not plain (dropout, residual, several readers) their h, slope or delta on the way.
struct HalfBuffers {
  int capacity;      // a multiple of kHalfRows
  ptrdiff_t stride;  // elements from panel to panel, here and in `wide`
  std::vector<Aligned<Bf16>> h, slope, delta, turned, paired;
  Buffers<float> wide;

  HalfBuffers(const Layout<float>& layout, int rows, bool backward);
};

// out (n, d_out) as Model::forward, its products in bfloat16: a row's result stays within some
// 2^-7 of float32's, relative to the largest sum behind it. half_kernels() must not be null.
void forward_half(Layout<float>& layout, const float* x, int64_t n, float* out, int n_threads,
                  const Poll& poll);

// Packed bfloat16 copies of a layout's weights, and the passes that use them.
class HalfLayout {
 public:
  // Transposed copies are for the way back only.
  HalfLayout(Layout<float>& layout, const HalfKernels& kernels, bool backward);

  int block_rows() const { return block_rows_; }
  const HalfKernels& kernels() const { return kernels_; }
  void pack();                          // all weights
  void pack_tile(int l, int p, int q);  // after a step

  // As the passes of Layout; row0 is a multiple of kHalfRows.
  void load_rows(HalfBuffers& b, const float* x, const int32_t* index, int row0, int rows) const;
  void forward_rows(HalfBuffers& b, int row0, int rows, const DropoutKey* dropout,
                    uint64_t first_row) const;
  void backward_rows(HalfBuffers& b, Part<float>& part, int row0, int rows, bool gradients,
                     bool accumulate) const;
  void gradient_tile(const HalfBuffers& b, int l, int p, int q, int row0, int rows, float* tile,
                     bool accumulate) const;

 private:
  void finish_layer(HalfBuffers& b, int l, int row0, int rows, const DropoutKey* dropout,
                    uint64_t first_row) const;
  void finish_delta(HalfBuffers& b, Part<float>& part, int l, int row0, int rows) const;

  Layout<float>& a_;
  const HalfKernels& kernels_;
  int block_rows_;
  const bool backward_;
  const bool table_;                   // the encoding learns, so that d loss / d h_0 is wanted
  std::vector<Aligned<Bf16>> w_, wt_;  // by layer, tiles at the places of Layer::tile, ::transposed
};

// What a thread needs while it multiplies: AMX tiles are configured a thread.
class HalfThread {
 public:
  explicit HalfThread(const HalfLayout* half) : kernels_(half ? &half->kernels() : nullptr) {
    if (kernels_) kernels_->enter();
  }
  ~HalfThread() {
    if (kernels_) kernels_->leave();
  }
  HalfThread(const HalfThread&) = delete;
  HalfThread& operator=(const HalfThread&) = delete;

 private:
  const HalfKernels* kernels_;
};

}  // namespace lamina
