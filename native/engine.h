// The engine's whole C++ interface: a specification, a model (packed parameters), a run (optimiser
// state). It knows nothing of Python; bindings.cpp is the only file that does.
//
// Symbols (docs/notation.md): layers 1..L, h_0 = x, u_l = [h_{l-1}, h_j ...], z_l = u_l W_l^T +
// b_l, h_l = phi(z_l). Flat parameters theta: W_1 (d_1, fan_in_1) row-major, b_1, W_2, b_2, ...,
// and the table of the encoding, when h_0 = encoding(x) has one.
#pragma once
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "kernels.h"

namespace lamina {

struct LayerSpec {
  int d_out;
  Activation activation;     // identity on the last layer, which Spec::output follows
  std::vector<int> sources;  // l-1, then the skips
  bool residual;             // h_l = phi(z_l) + h_{l-1}
  double dropout;            // rate after phi
};

enum class EncodingKind { kNone, kGrid, kSinusoid, kBlob };
struct GridLevelSpec {
  int resolution;   // cells along an axis
  int64_t entries;  // a multiple of kTableGroup; a power of two if indices wrap
  bool hashed, wraps;
  int axis = -1;       // the one coordinate it reads, or all of them
  int categories = 0;  // so many vectors and nothing between them; 0: interpolated
};
// What h_0 is; encoding.h computes it.
struct EncodingSpec {
  EncodingKind kind = EncodingKind::kNone;
  int width = 0;  // d_0
  // grids: d_in <= 3 unless every level reads one coordinate
  int features = 0;
  bool smooth = false;
  double low = 0, high = 1;
  std::vector<GridLevelSpec> levels;
  // waves: column c is f(factor . x + offset), or x itself for the first n_copied
  int n_copied = 0;
  std::vector<int> axis;               // the one axis of each column, or empty
  std::vector<double> factor, offset;  // factor: (width) with an axis, else (d_in, width)
};

struct Spec {
  int d_in;
  std::vector<LayerSpec> layers;
  Output output;
  EncodingSpec encoding{};
  int n_members = 0;  // BatchEnsemble (members.cpp): so many share the weights; 0: a plain network
};

struct LossSpec {
  Loss loss;
  // huber: delta; cross-entropy: label smoothing; pinball: levels; eikonal: weights of |grad f| = 1
  // and of given gradients; sobolev: weight of given gradients; both: 1 for absolute errors
  std::vector<double> parameters;
};

// Rows to learn from. Exactly one of values and classes is set.
template <class T>
struct Rows {
  int64_t n;
  const T* x;              // (n, d_in)
  const T* values;         // (n, d_target)
  const int32_t* classes;  // (n,)
  const T* row_weight;     // (n,) or null
  const T* output_weight;  // (d_out,) or null
};

// Called every 50 ms or so from the calling thread; true asks to stop.
using Poll = std::function<bool()>;
struct Interrupted : std::exception {
  const char* what() const noexcept override { return "interrupted"; }
};

// Memory that is not there; the text says how many bytes were asked for.
struct OutOfMemory : std::bad_alloc {
  OutOfMemory(size_t bytes, size_t available);
  const char* what() const noexcept override { return text_; }

 private:
  char text_[200];
};
// Throws OutOfMemory where so many bytes are more than what is free.
void require_memory(size_t bytes);

template <class T>
struct Layout;  // layout.h
template <class T>
struct Buffers;
class Watch;

// Packed parameters of one network. Concurrent forward calls are safe; set_parameters and runs need
// to be alone.
template <class T>
class Model {
 public:
  explicit Model(const Spec& spec);
  ~Model();

  int64_t n_params() const;
  double flops_a_row() const;  // of the forward pass
  int64_t n_table() const;     // those of the encoding, which end theta
  void set_parameters(const T* theta);
  void get_parameters(T* theta) const;

  // out (n, d_out) = output(z_L); with members (n_members, n, d_out).
  void forward(const T* x, int64_t n, T* out, int n_threads, const Poll& poll) const;
  // z[l-1], h[l-1] (n, d_l) for l = 1..L; h of the last layer is the output.
  void trace(const T* x, int64_t n, const std::vector<T*>& z, const std::vector<T*>& h,
             const Poll& poll) const;
  // The loss; its gradient in theta's layout unless null; d loss / d x (n, d_in) unless null.
  double evaluate(const Rows<T>& rows, const LossSpec& loss, T* grad, T* grad_x, int n_threads,
                  const Poll& poll);

  // Of a network with an encoding: out (n, d_0) = h_0, or d h_0 / d x_j for derivative = j.
  void encode(const T* x, int64_t n, int derivative, T* out, int n_threads, const Poll& poll) const;
  // grad_table = the transpose of that (linear in the table) on g (n, d_0); zero without a table.
  void encode_backward(const T* x, int64_t n, int derivative, const T* g, T* grad_table,
                       int n_threads, const Poll& poll) const;
  // values f (n, d_out), jacobian df_o/dx_j (n, d_out, d_in) and curvature (n, d_out), the sum over
  // j of coefficients[j] d^2f_o/dx_j^2; those that are null are not computed.
  void jet(const T* x, int64_t n, const T* coefficients, T* values, T* jacobian, T* curvature,
           int n_threads, const Poll& poll);
  // From d loss / d (values, jacobian, curvature), null for zero, to d loss / d theta and / d x.
  void jet_backward(const T* x, int64_t n, const T* coefficients, const T* d_values,
                    const T* d_jacobian, const T* d_curvature, T* grad, T* grad_x, int n_threads,
                    const Poll& poll);
  // out (n, d_out, d_in): the Hessian of each output times v (n, d_in).
  void hessian_vector(const T* x, const T* v, int64_t n, T* out, int n_threads, const Poll& poll);

  Layout<T>& layout() { return *layout_; }

 private:
  double evaluate_derivatives(const Rows<T>& rows, const LossSpec& loss, T* grad, T* grad_x,
                              int n_threads, const Poll& poll);
  std::unique_ptr<Layout<T>> layout_;
};

// Multiply-adds a second, counted as two operations each, of loops that touch registers only, on
// n_threads for so long; 0 where the processor has no such products.
enum class Peak { kFloat32, kFloat64, kBfloat16 };
double peak_flops(Peak kind, int n_threads, double seconds);

enum class Optimizer { kAdam, kSgd };

struct RunSpec {
  LossSpec loss;
  Optimizer optimizer;
  double beta_1, beta_2, epsilon;  // SGD: beta_1 is the momentum
  bool epsilon_hat;  // epsilon is added before the bias correction (Kingma & Ba 2014, end of
                     // section 2)
  bool nesterov;
  double weight_decay, l2;
  bool l2_per_row;  // l2 is divided by the batch's weight (scikit-learn's alpha)
  // The loss as reported is value_scale times the data's plus the l2 term; gradients do not see it
  // (scikit-learn averages the squared error over outputs but sums its gradient).
  double value_scale;
  int batch_size;
  uint64_t seed;
  int n_threads;
  // Products in bfloat16 with float32 sums and master weights; T must be float and half_kernels()
  // (dispatch.h) not null.
  bool bfloat16 = false;
};

template <class T>
struct EpochPlan {
  Rows<T> rows;
  // Null, or n rows of x to learn from: row i of an epoch is then row subset[i] of x.
  const int32_t* subset;
  const int64_t* order;  // (n_epochs, n) or null: shuffled by (seed, epoch), or as they come
  bool shuffle;
  int64_t first_epoch, n_epochs;
  const double* lr;  // one a step
  double* losses;    // out, one an epoch
  double deadline;   // seconds from now after which no epoch is started; infinity for none
};

// Training: owns the optimiser's moments; the parameters stay packed in the model from epoch to
// epoch.
template <class T>
class Run {
 public:
  Run(Model<T>& model, const RunSpec& spec);
  ~Run();

  // Whole epochs; returns how many had a finite loss before it stopped. Throws Interrupted between
  // steps.
  int64_t epochs(const EpochPlan<T>& plan, const Poll& poll);
  // One step of the optimiser on a gradient in theta's layout.
  void apply(const T* gradient, double lr);

  // The same for a plan with rows and epochs, by any number of threads that come when they can:
  // each calls work, which returns when all is done; end says how many epochs were completed.
  class Call {
   public:
    Call(Run& run, const EpochPlan<T>& plan, Watch& watch);
    ~Call();
    void work(int thread);
    int64_t end();

   private:
    struct Parts;
    std::unique_ptr<Parts> parts_;
  };

  int n_parts() const;  // more threads than these find nothing to do
  int64_t step() const;
  void get_state(T* m, T* v) const;
  void set_state(const T* m, const T* v, int64_t step);

 private:
  struct State;
  struct Epochs;
  std::unique_ptr<State> state_;
};

// One of several networks that learn from the same rows; then scored on rows of its own, or not.
template <class T>
struct Member {
  Model<T>* model;
  Run<T>* run;
  EpochPlan<T> plan;
  const Rows<T>* held;  // null: not scored
  const LossSpec* loss;
  T* y_pred;  // (held->n, d_out), out

  int64_t done = 0;      // out: as Run::epochs
  double held_loss = 0;  // out
};

// Trains the members, each by one thread alone where there are enough of them; threads that find
// none left help those that still work and have several parts. Throws Interrupted between steps.
template <class T>
void train_together(std::vector<Member<T>>& members, int n_threads, const Poll& poll);

}  // namespace lamina
