// The table of kernels one instruction set provides for one element type.
//
// Memory layout shared by every ISA: a *panel* is kPanel<T> = 128 bytes of columns. Activations of
// one layer live as [panel][row][kPanel], weights as tiles [output panel][input panel][k][n] (k
// input column, n output column), and the transposed copy as [input panel][output panel][n][k].
// Padding columns of weights, biases and deltas are zero. Kernels never allocate, throw or see
// Python. Plain data only here: translation units that are compiled with different flags may share
// no inline code.
#pragma once
#include <cstddef>
#include <cstdint>

namespace lamina {

template <class T>
inline constexpr int kPanel = 128 / static_cast<int>(sizeof(T));

enum Activation : int {
  kIdentity,
  kStep,
  kSigmoid,
  kTanh,
  kRelu,
  kLeakyRelu,
  kSoftplus,
  kGelu,
  kGeluTanh,
  kSilu,
  kSelu,
  kMish,
  kSine,
  kSquaredRelu,
  kActivationCount
};
enum Output : int { kOutIdentity, kOutSigmoid, kOutSoftmax, kOutExp, kOutStep };
enum Loss : int {
  kSquared,
  kAbsolute,
  kHuber,
  kBinaryCrossEntropy,
  kCrossEntropy,
  kPoisson,
  kPinball,
  kEikonal,  // these two compare derivatives of the outputs as well (jets.h)
  kSobolev
};
enum Epilogue : int {
  kNone,     // y = acc
  kReluEpi,  // y = max(acc, 0), NaN kept
  kMaskByH,  // y = h > 0 ? acc : 0     (derivative of relu, read off its output)
  kMulByD,   // y = acc * d             (any other derivative, stored by the forward pass)
};

// One output panel of Y = X W for `rows` rows, X given as n_panels panels of which panel i has
// widths[i] columns.
template <class T>
struct GemmArgs {
  const T* const* x;  // n_panels pointers to [row][kPanel]
  const int* widths;  // valid columns of each
  int n_panels;
  const T* w;  // n_panels tiles [k][kPanel], contiguous
  int rows;
  int columns;      // valid columns of the output panel, 1..kPanel
  const T* bias;    // kPanel values or null (zero)
  T* y;             // [row][kPanel]; columns past the last register touched are left alone
  bool accumulate;  // start from y instead of bias
  Epilogue epilogue;
  const T* side;   // h or d of the epilogue, laid out as y
  T* column_sums;  // null, or kPanel sums over rows of the result, added to
};

// Products of at most kStreamRows rows with a row-major matrix that is read once, as it lies.
inline constexpr int kStreamRows = 8;
template <class T>
struct StreamArgs {
  const T* x;  // panels [row][kPanel], x_stride apart
  ptrdiff_t x_stride;
  int width;   // columns of x
  const T* w;  // rows ld apart
  ptrdiff_t ld;
  int rows, columns;  // of the result
  const T* bias;      // columns values or null (zero)
  T* y;               // panels, y_stride apart; columns past the last register are left alone
  ptrdiff_t y_stride;
  bool accumulate;  // start from y
  Epilogue epilogue;
  const T* side;  // laid out as y
};

template <class T>
struct LossArgs {
  Loss loss;
  Output output;
  int rows, columns;  // columns = d_out
  T* z;  // [panel][..][kPanel], in: pre-activations; out: d loss / d z when want_gradient
  ptrdiff_t z_stride;  // elements from panel to panel
  const T* y;          // targets in the same form (column-expanded for pinball), or null
  ptrdiff_t y_stride;
  const int32_t* classes;  // class ids, or null
  const T* row_weight;     // one a row, or null (one)
  const T* column_weight;  // [panel][kPanel], zero in padding
  bool column_weighted;    // false when all of them are one
  const T* column_param;   // pinball levels a column, [panel][kPanel], or null
  T parameter;             // huber delta, label smoothing
  T scale;                 // multiplies gradients
  bool want_gradient;
  T* bias_gradient;  // [panel][kPanel], added to when want_gradient
};

inline constexpr int kFewClasses = 8;

// The output unit exp, where it stands among the activations.
inline constexpr int kExpUnit = kActivationCount;

// One panel of a layer's jets: streams of `count` elements, one after the other, hold the value,
// n_tangents derivatives along directions and, where curvature is set, sum_j c_j d^2/dx_j^2.
template <class T>
struct JetArgs {
  int function;  // an Activation, or kExpUnit
  int n_tangents;
  ptrdiff_t count;     // rows * kPanel
  const T* curvature;  // c_j, or null: no second derivatives
  const T* z;          // streams before phi
  T* h;                // forward: streams after it
  bool keep;  // forward: store d1 = phi', d2 (tangents) and d3 (curvature), one stream each
  T *d1, *d2, *d3;
  T* delta;        // backward, in place: d loss / d streams of h, then of z
  T* column_sums;  // backward: null, or kPanel sums over rows of the value's delta, added to
};

// Coefficients of one optimiser step, computed in double by the caller.
struct StepCoefficients {
  double lr;              // Adam: lr / (1 - beta_1^t); SGD: lr
  double beta_1, beta_2;  // SGD: beta_1 is the momentum
  double second;          // 1 / (1 - beta_2^t)
  double epsilon;
  double decay;  // weights are multiplied by 1 - decay first (0 for biases)
  double l2;     // added to the gradient times the weight (0 for biases)
  bool nesterov;
};

template <class T>
struct StepArgs {
  T* w;
  T* m;
  T* v;                       // null for SGD
  const T* const* gradients;  // n_gradients partial gradients, added in order
  int n_gradients;
  int rows, columns;  // rows of kPanel, valid columns
};

// One level of a multiresolution grid over the unit cube, and the rows that look it up.
template <class T>
struct GridArgs {
  int d, features;     // 1..3 coordinates, 1..4 features an entry
  int resolution;      // cells along an axis; (resolution + 1)^d corners
  uint32_t factor[3];  // of a corner's coordinate in its index: strides, or the hash's primes
  bool hashed;         // terms are joined by exclusive or, else by addition
  uint32_t mask;       // index & mask is the entry
  bool smooth;         // weights by smoothstep, else linear
  bool nearest;        // one corner has all the weight
  bool prefetch;       // the level is larger than the first cache
  T scale;             // d u / d x
  const T* u;          // coordinates, [axis][u_stride], clamped to [0, 1] here
  ptrdiff_t u_stride;
  ptrdiff_t x_stride;  // of grad_x
  int rows;
};

// Columns h_c = f(a_c . x + offset_c): sinusoids or blobs of linear functions of a row.
enum Wave : int {
  kSinusoid,  // f(t) = sin(pi t)
  kBlob,      // f(t) = Phi(t + 1) - Phi(t), Phi the normal distribution
};
template <class T>
struct WaveArgs {
  Wave wave;
  int d, columns;   // columns: padded to kPanel
  int n_copied;     // the first columns are x itself
  const int* axis;  // the only axis a column reads, or null: all
  const T* a;       // one factor a column, or [axis][columns] when axis is null
  const T* offset;  // one a column
  const T* x;       // [row][d]
  int rows;
};

// Adam or SGD on one level's entries, in groups of kTableGroup entries.
inline constexpr int kTableGroup = 16;
template <class T>
struct TableStepArgs {
  T *w, *m, *v;        // v null for SGD, m null for SGD without momentum
  T* gradient;         // set to zero on the way
  uint8_t* touched;    // one a group, set to zero on the way; null: all are
  ptrdiff_t n_groups;  // of kTableGroup * features elements each
  int features;
};

template <class T>
struct Kernels {
  void (*gemm)(const GemmArgs<T>&);
  // The same for `n_out` output panels at once and at most few_rows rows, bit for bit: w has their
  // tiles one after another, bias their columns, y lies y_stride from panel to panel. Epilogues:
  // none and ReLU; no accumulate, no column sums; whole panels are written.
  int few_rows;
  void (*gemm_few)(const GemmArgs<T>&, int n_out, ptrdiff_t y_stride);
  // C[k][n] (+)= sum over rows of x[row][k] d[row][n]; one tile of the weight gradient.
  void (*gradient_tile)(const T* x, const T* d, int rows, int k_columns, int n_columns, T* c,
                        bool accumulate);
  int thin_limit;  // thin kernels take up to this many outputs
  // y[row][0..columns) = x . wt + bias, wt tiles [n][kPanel] with stride wt_stride.
  void (*thin_forward)(const T* const* x, const int* widths, int n_panels, const T* wt,
                       ptrdiff_t wt_stride, int rows, int columns, const T* bias, T* y);
  void (*thin_gradient_tile)(const T* x, const T* d, int rows, int k_columns, int n_columns, T* c,
                             bool accumulate);
  // h = phi(z) in place over count elements (a multiple of the register); d = phi'(z) unless null.
  void (*activate)(Activation, T* z, T* d, ptrdiff_t count);
  // y[row][..] += x (residual); y *= d with column sums (the unfused epilogue).
  void (*add)(T* y, const T* x, ptrdiff_t count);
  void (*finish_delta)(T* y, Epilogue, const T* side, int rows, T* column_sums);
  // Inverted dropout with a counter-based generator: mask bit of element i of row r is a hash of
  // (key, r, i).
  void (*dropout)(T* h, T* d, int rows, uint64_t row0, uint32_t column0, uint64_t key, double rate);
  double (*loss)(const LossArgs<T>&);  // returns the weighted sum of losses, unscaled
  void (*output)(Output, T* z, ptrdiff_t z_stride, int rows, int columns);
  void (*transpose_tile)(const T* w, T* wt, int k_rows, int n_columns);  // wt[n][k] = w[k][n]
  double (*adam)(const StepArgs<T>&,
                 const StepCoefficients&);  // both return sum of w^2 before the step
  double (*sgd)(const StepArgs<T>&, const StepCoefficients&);
  // rows of a row-major matrix into panels, zero-padded; index may be null (then rows
  // first..first+rows).
  void (*gather)(const T* x, ptrdiff_t columns, const int32_t* index, int rows, T* panels,
                 ptrdiff_t stride);
  void (*map)(int function, const T* x, T* y,
              ptrdiff_t count);  // vector mathematics, for its tests
  // Multiply-adds in registers, so many rounds of them; returns the operations done.
  double (*peak)(int64_t rounds, T* sink);
  // Grouped products (kernels_grouped.h says what each does).
  void (*load_tile)(const T* w, ptrdiff_t ld, int rows, int columns, T* tile);
  void (*load_tile_turned)(const T* w, ptrdiff_t ld, int rows, int columns, T* tile);
  // Of few rows (kernels_stream.h).
  void (*stream_turned)(const StreamArgs<T>&);
  void (*stream_straight)(const StreamArgs<T>&);
  void (*stream_gradient)(const T* d, const T* x, ptrdiff_t x_stride, int rows, int n_out,
                          int columns, T* w);
  void (*gate)(Activation, T* g, T* u, T* h, bool keep, ptrdiff_t count);
  void (*multiply)(T* y, const T* a, const T* b, ptrdiff_t count);
  void (*column_sums)(const T* y, int rows, T* sums);
  void (*weigh_rows)(T* y, const T* o, const T* share, int rows, int columns, ptrdiff_t stride,
                     T* dots);
  void (*combine)(const T* const* rows, const ptrdiff_t* strides, const T* share, int top_k,
                  int columns, T* out);
  // Encodings (kernels_inputs.h). derivative: -1 for the value, j for d / d x_j. Feature f of row
  // r stands at column[f][r * stride].
  void (*grid_forward)(const GridArgs<T>&, int derivative, const T* table, T* const* column,
                       ptrdiff_t stride);
  // table_gradient += the transpose of grid_forward on g; touched: one a group of entries, or null.
  void (*grid_scatter)(const GridArgs<T>&, int derivative, const T* const* g, ptrdiff_t stride,
                       T* table_gradient, uint8_t* touched);
  // grad_x[row * x_stride + d] += d <g, features> / d x.
  void (*grid_input)(const GridArgs<T>&, const T* table, const T* const* g, ptrdiff_t stride,
                     T* grad_x);
  // Along axes[0] ... axes[order - 1]; order 0 is h itself, 3 the most.
  void (*wave_forward)(const WaveArgs<T>&, int order, const int* axes, T* panels, ptrdiff_t stride);
  void (*wave_input)(const WaveArgs<T>&, const T* g, ptrdiff_t stride, T* grad_x);
  void (*table_adam)(const TableStepArgs<T>&, const StepCoefficients&);  // skips zero gradients
  void (*table_sgd)(const TableStepArgs<T>&, const StepCoefficients&);
  void (*jet_forward)(const JetArgs<T>&);
  void (*jet_backward)(const JetArgs<T>&);
  // y = x * scale + shift (null: zero) with one scale and shift a column; and its way back:
  // sums += sum over rows of d * x, then d *= scale. Whole panels of `rows` rows.
  void (*affine)(const T* x, const T* scale, const T* shift, int rows, T* y);
  void (*affine_back)(T* d, const T* x, const T* scale, int rows, T* sums);
};

struct KernelSet {
  const char* name;
  const Kernels<float>* f32;
  const Kernels<double>* f64;
};

#if defined(LAMINA_ISA_AVX512)
extern const KernelSet kernels_avx512;
#endif
#if defined(LAMINA_ISA_AVX2)
extern const KernelSet kernels_avx2;
#endif
#if defined(LAMINA_ISA_NEON)
extern const KernelSet kernels_neon;
#endif
extern const KernelSet kernels_scalar;

}  // namespace lamina
