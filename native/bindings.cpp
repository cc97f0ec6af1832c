// Networks and runs for Python; bindings_*.cpp are its neighbours, and no other file knows Python.
// Arrays come in exactly the right type and layout or not at all
// (noconvert: nanobind would silently narrow float64); sizes and ids are checked here, once, and
// trusted below.
#include "bindings.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <stdexcept>
#include <tuple>

#include "bindings_buffer.h"
#include "dispatch.h"
#include "engine.h"
#include "half.h"
#include "jets.h"
#include "threads.h"

namespace lamina {
namespace {

const std::map<std::string, Output> kOutputs = {{"identity", kOutIdentity},
                                                {"sigmoid", kOutSigmoid},
                                                {"softmax", kOutSoftmax},
                                                {"exp", kOutExp},
                                                {"step", kOutStep}};
const std::map<std::string, Loss> kLosses = {{"squared_error", kSquared},
                                             {"absolute_error", kAbsolute},
                                             {"huber", kHuber},
                                             {"pinball", kPinball},
                                             {"binary_cross_entropy", kBinaryCrossEntropy},
                                             {"cross_entropy", kCrossEntropy},
                                             {"poisson", kPoisson},
                                             {"eikonal", kEikonal},
                                             {"sobolev", kSobolev}};

LossSpec loss_spec(const std::string& name, const std::vector<double>& parameters, Output output,
                   int d_out) {
  const Loss loss = look_up(kLosses, name, "loss");
  require(loss != kBinaryCrossEntropy || output == kOutSigmoid,
          "binary_cross_entropy needs the output sigmoid");
  require(loss != kCrossEntropy || output == kOutSoftmax, "cross_entropy needs the output softmax");
  require(loss != kPoisson || output == kOutExp, "poisson needs the output exp");
  require(loss != kHuber || parameters.size() == 1, "huber needs its delta");
  require(loss != kPinball || (!parameters.empty() && d_out % parameters.size() == 0),
          "pinball needs d_out to be a multiple of its levels");
  require(loss != kEikonal || parameters.size() == 3, "eikonal needs three parameters");
  require(loss != kSobolev || parameters.size() == 2, "sobolev needs two parameters");
  return {loss, parameters};
}

using LayerTuple = std::tuple<int, std::string, std::vector<int>, bool, double>;

// kind, whole numbers and real numbers, as core/encodings.py lists them.
using EncodingTuple = std::tuple<std::string, std::vector<int64_t>, std::vector<double>>;

constexpr int64_t kMostEntries = int64_t{1} << 28, kMostColumns = 1 << 20;

EncodingSpec make_grid(int d_in, const std::vector<int64_t>& whole,
                       const std::vector<double>& real) {
  constexpr int64_t kMostCells = int64_t{1} << 22;
  require(d_in <= 3, "a grid takes 1 to 3 coordinates");
  require(whole.size() >= 6 && whole.size() % 4 == 2, "a grid needs four numbers a level");
  require(real.size() == 2 && real[0] < real[1], "a grid needs rising bounds");
  require(whole[0] >= 1 && whole[0] <= 4, "a grid has 1 to 4 features a level");
  EncodingSpec e;
  e.kind = EncodingKind::kGrid;
  e.features = static_cast<int>(whole[0]);
  e.smooth = whole[1] != 0;
  e.low = real[0];
  e.high = real[1];
  for (size_t i = 2; i < whole.size(); i += 4) {
    const int64_t cells = whole[i], entries = whole[i + 1];
    const bool hashed = whole[i + 2] != 0, wraps = whole[i + 3] != 0;
    require(cells >= 1 && cells <= kMostCells, "a level's resolution is out of range");
    require(entries >= kTableGroup && entries <= kMostEntries && entries % kTableGroup == 0,
            "a level's size is out of range");
    require(!hashed || wraps, "a hashed level wraps");
    if (wraps)
      require((entries & (entries - 1)) == 0, "a level that wraps has a power of two as its size");
    else
      require(std::pow(static_cast<double>(cells + 1), d_in) <= static_cast<double>(entries),
              "a dense level has an entry a corner");
    e.levels.push_back({static_cast<int>(cells), entries, hashed, wraps});
  }
  require(e.levels.size() <= 64, "a grid has at most 64 levels");
  e.width = e.features * static_cast<int>(e.levels.size());
  return e;
}

// Levels that read one coordinate each: axis, entries, cells (0 for categories), categories.
EncodingSpec make_columns(int d_in, const std::vector<int64_t>& whole,
                          const std::vector<double>& real) {
  constexpr int64_t kMost = int64_t{1} << 20;  // cells or categories: a float32 still tells them
  require(whole.size() >= 5 && whole.size() % 4 == 1, "columns need four numbers a level");
  require(real.empty(), "columns have no real numbers");
  require(whole[0] >= 1 && whole[0] <= 4, "a level has 1 to 4 features");
  EncodingSpec e;
  e.kind = EncodingKind::kGrid;
  e.features = static_cast<int>(whole[0]);
  for (size_t i = 1; i < whole.size(); i += 4) {
    const int64_t axis = whole[i], entries = whole[i + 1], cells = whole[i + 2],
                  categories = whole[i + 3];
    require(axis >= 0 && axis < d_in, "a level reads a column that exists");
    require(cells >= 0 && cells <= kMost && categories >= 0 && categories <= kMost &&
                (cells > 0) != (categories > 0),
            "a level has cells or categories, not too many");
    const int64_t resolution = std::max<int64_t>(cells > 0 ? cells : categories - 1, 1);
    require(entries > resolution && entries <= kMostEntries && entries % kTableGroup == 0,
            "a level's size is out of range");
    e.levels.push_back({static_cast<int>(resolution), entries, false, false, static_cast<int>(axis),
                        static_cast<int>(categories)});
  }
  require(e.levels.size() * e.features <= static_cast<size_t>(kMostColumns),
          "an encoding's width is out of range");
  e.width = e.features * static_cast<int>(e.levels.size());
  return e;
}

EncodingSpec make_wave(int d_in, bool blob, const std::vector<int64_t>& whole,
                       const std::vector<double>& real) {
  require(whole.size() >= 2, "a wave needs its width");
  require(whole[0] >= 1 && whole[0] <= kMostColumns, "an encoding's width is out of range");
  EncodingSpec e;
  e.kind = blob ? EncodingKind::kBlob : EncodingKind::kSinusoid;
  e.width = static_cast<int>(whole[0]);
  const size_t width = whole[0];
  require(whole[1] == 0 || (whole[1] == d_in && d_in <= e.width), "all inputs are copied, or none");
  e.n_copied = static_cast<int>(whole[1]);
  require(whole.size() == 2 || whole.size() == 2 + width, "a column reads one axis");
  for (size_t i = 2; i < whole.size(); ++i) {
    require(whole[i] >= 0 && whole[i] < d_in, "a column reads an input that exists");
    e.axis.push_back(static_cast<int>(whole[i]));
  }
  const size_t factors = e.axis.empty() ? width * d_in : width;
  require(real.size() == factors + width, "a wave needs its factors and offsets");
  e.factor.assign(real.begin(), real.begin() + static_cast<ptrdiff_t>(factors));
  e.offset.assign(real.begin() + static_cast<ptrdiff_t>(factors), real.end());
  return e;
}

EncodingSpec make_encoding(int d_in, const std::optional<EncodingTuple>& encoding) {
  if (!encoding) return {};
  const auto& [kind, whole, real] = *encoding;
  require(std::all_of(real.begin(), real.end(), [](double v) { return std::isfinite(v); }),
          "an encoding's numbers must be finite");
  if (kind == "grid") return make_grid(d_in, whole, real);
  if (kind == "columns") return make_columns(d_in, whole, real);
  require(kind == "sinusoid" || kind == "blob", "unknown encoding");
  return make_wave(d_in, kind == "blob", whole, real);
}

Spec make_spec(int d_in, const std::vector<LayerTuple>& layers, const std::string& output,
               const std::optional<EncodingTuple>& encoding, int n_members) {
  require(d_in >= 1, "d_in must be at least 1");
  require(n_members >= 0 && n_members <= 65536, "at most 65536 members");
  require(n_members == 0 || !encoding, "members read x itself");
  require(!layers.empty(), "at least one layer is needed");
  Spec spec{
      d_in, {}, look_up(kOutputs, output, "output"), make_encoding(d_in, encoding), n_members};
  int l = 0;
  int before = spec.encoding.width > 0 ? spec.encoding.width : d_in;
  for (const auto& [d_out, activation, sources, residual, dropout] : layers) {
    ++l;
    require(d_out >= 1, "a layer's width must be at least 1");
    require(!sources.empty() && sources[0] == l - 1,
            "a layer's first source is the layer before it");
    for (size_t i = 0; i < sources.size(); ++i)
      require(sources[i] >= 0 && sources[i] < l &&
                  std::count(sources.begin(), sources.end(), sources[i]) == 1,
              "a layer's sources are distinct earlier layers");
    require(n_members == 0 || (sources.size() == 1 && !residual), "members take a plain chain");
    require(!residual || d_out == before, "a residual needs equal widths");
    require(dropout >= 0 && dropout < 1, "dropout must be in [0, 1)");
    spec.layers.push_back(
        {d_out, look_up(kActivations, activation, "activation"), sources, residual, dropout});
    before = d_out;
  }
  const LayerSpec& last = spec.layers.back();
  require(last.activation == kIdentity && !last.residual && last.dropout == 0,
          "the last layer is plain");
  return spec;
}

template <class T>
struct PyEngine {
  using Matrix = Array<T, 2>;
  using Input = Array<const T, 2>;
  using Vector = Array<T, 1>;
  using InputVector = Array<const T, 1>;

  Spec spec;
  Model<T> model;
  int d_out;
  std::string isa;
  // Forward calls share it, everything that writes parameters is alone.
  mutable ForkSafeMutex mutex;

  PyEngine(int d_in, const std::vector<LayerTuple>& layers, const std::string& output,
           const std::optional<EncodingTuple>& encoding, int n_members)
      : spec(make_spec(d_in, layers, output, encoding, n_members)),
        model(spec),
        d_out(spec.layers.back().d_out),
        isa(current_isa()) {}

  void check_x(const Input& x) const {
    require(x.shape(1) == static_cast<size_t>(spec.d_in), "x has the wrong number of columns");
  }
  void check_threads(int n_threads) const {
    require(n_threads >= 1, "n_threads must be at least 1");
  }

  void set_parameters(const InputVector& theta) {
    require(static_cast<int64_t>(theta.shape(0)) == model.n_params(), "theta has the wrong size");
    nb::gil_scoped_release release;
    std::unique_lock lock(mutex);
    model.set_parameters(theta.data());
  }
  void get_parameters(const Vector& theta) const {
    require(static_cast<int64_t>(theta.shape(0)) == model.n_params(), "theta has the wrong size");
    nb::gil_scoped_release release;
    std::shared_lock lock(mutex);
    model.get_parameters(theta.data());
  }

  void forward(const Input& x, const Matrix& out, int n_threads) const {
    check_x(x);
    check_threads(n_threads);
    require(out.shape(0) == x.shape(0) * std::max(1, spec.n_members) &&
                out.shape(1) == static_cast<size_t>(d_out),
            "out has the wrong shape");
    without_gil([&](const Poll& poll) {
      std::shared_lock lock(mutex);
      model.forward(x.data(), static_cast<int64_t>(x.shape(0)), out.data(), n_threads, poll);
    });
  }

  void forward_half(const Input& x, const Matrix& out, int n_threads) {
    check_x(x);
    check_threads(n_threads);
    require(out.shape(0) == x.shape(0) && out.shape(1) == static_cast<size_t>(d_out),
            "out has the wrong shape");
    require(sizeof(T) == 4 && half_kernels(), "bfloat16 is not available here");
    require(spec.n_members == 0, "bfloat16 has no members");
    if constexpr (sizeof(T) == 4)
      without_gil([&](const Poll& poll) {
        std::shared_lock lock(mutex);
        lamina::forward_half(model.layout(), x.data(), static_cast<int64_t>(x.shape(0)), out.data(),
                             n_threads, poll);
      });
  }

  // net(x, out) for arrays that need no care, in as few nanoseconds as can be: y_pred, or None
  // where anything is unusual, and then nothing has been done. Work that takes a few microseconds
  // keeps the GIL, whose release would cost more than it gives; more work asks n_threads() first.
  nb::object predict(nb::handle x, nb::handle out, nb::handle n_threads) const {
    constexpr double kShortFlops = 5e5;  // some 5 us
    const MatrixBuffer<T> rows(x, false);
    if (spec.n_members || !rows || rows.columns() != spec.d_in) return nb::none();
    const int64_t n = rows.rows();
    nb::object y = out.is_none() ? empty_matrix<T>(n, d_out) : nb::borrow(out);
    const MatrixBuffer<T> result(y, true);
    if (!result || result.rows() != n || result.columns() != d_out || result.overlaps(rows))
      return nb::none();
    if (model.flops_a_row() * static_cast<double>(n) < kShortFlops) {
      // Waiting with the GIL held could be for ever: who holds the lock may be waiting for the GIL.
      std::shared_lock lock(mutex, std::try_to_lock);
      if (lock.owns_lock()) {
        model.forward(rows.data(), n, result.data(), 1, nullptr);
        return y;
      }
    }
    const int threads = nb::cast<int>(n_threads());
    check_threads(threads);
    without_gil([&](const Poll& poll) {
      std::shared_lock lock(mutex);
      model.forward(rows.data(), n, result.data(), threads, poll);
    });
    return y;
  }

  void trace(const Input& x, const std::vector<Matrix>& z, const std::vector<Matrix>& h) const {
    check_x(x);
    std::vector<T*> z_data, h_data;
    require(spec.n_members == 0, "a network with members has no trace");
    require(z.size() == spec.layers.size() && h.size() == z.size(),
            "trace needs one array a layer");
    for (size_t l = 0; l < z.size(); ++l)
      for (const Matrix* m : {&z[l], &h[l]}) {
        require(
            m->shape(0) == x.shape(0) && m->shape(1) == static_cast<size_t>(spec.layers[l].d_out),
            "a trace array has the wrong shape");
        (m == &z[l] ? z_data : h_data).push_back(m->data());
      }
    without_gil([&](const Poll& poll) {
      std::shared_lock lock(mutex);
      model.trace(x.data(), static_cast<int64_t>(x.shape(0)), z_data, h_data, poll);
    });
  }

  void check_encoded(const Input& x, int derivative, size_t rows, size_t columns) const {
    check_x(x);
    require(spec.encoding.kind != EncodingKind::kNone, "this network has no encoding");
    require(derivative >= -1 && derivative < spec.d_in, "derivative must be -1 or an input");
    require(rows == x.shape(0) && columns == static_cast<size_t>(spec.encoding.width),
            "h_0 has the wrong shape");
  }
  void encode(const Input& x, int derivative, const Matrix& out, int n_threads) const {
    check_encoded(x, derivative, out.shape(0), out.shape(1));
    check_threads(n_threads);
    without_gil([&](const Poll& poll) {
      std::shared_lock lock(mutex);
      model.encode(x.data(), static_cast<int64_t>(x.shape(0)), derivative, out.data(), n_threads,
                   poll);
    });
  }
  void encode_backward(const Input& x, int derivative, const Input& g, const Vector& grad_table,
                       int n_threads) const {
    check_encoded(x, derivative, g.shape(0), g.shape(1));
    check_threads(n_threads);
    require(static_cast<int64_t>(grad_table.shape(0)) == model.n_table(),
            "grad_table has the wrong size");
    without_gil([&](const Poll& poll) {
      std::shared_lock lock(mutex);
      model.encode_backward(x.data(), static_cast<int64_t>(x.shape(0)), derivative, g.data(),
                            grad_table.data(), n_threads, poll);
    });
  }

  // Checks everything about the rows of one call and views them.
  Rows<T> rows(const Input& x, nb::handle y, const LossSpec& loss,
               const std::optional<InputVector>& sample_weight,
               const std::optional<InputVector>& output_weight) const {
    check_x(x);
    const size_t n = x.shape(0);
    Rows<T> r{static_cast<int64_t>(n), x.data(), nullptr, nullptr, nullptr, nullptr};
    Array<const int32_t, 1> classes;
    Input values;
    if (nb::try_cast(y, classes, false)) {
      require(loss.loss == kCrossEntropy, "class ids need cross_entropy");
      require(classes.shape(0) == n, "y has the wrong length");
      r.classes = classes.data();
      for (size_t i = 0; i < n; ++i)
        require(r.classes[i] >= 0 && r.classes[i] < d_out, "a class id is out of range");
    } else if (nb::try_cast(y, values, false)) {
      const size_t repeat = loss.loss == kPinball ? loss.parameters.size() : 1;
      const size_t columns = compares_derivatives(loss.loss)
                                 ? static_cast<size_t>(target_columns(loss, spec.d_in, d_out))
                                 : static_cast<size_t>(d_out) / repeat;
      require(values.shape(0) == n && values.shape(1) == columns, "y has the wrong shape");
      r.values = values.data();
    } else {
      refuse("y must be int32 class ids or a matrix of the engine's dtype");
    }
    if (sample_weight) {
      require(sample_weight->shape(0) == n, "sample_weight has the wrong length");
      r.row_weight = sample_weight->data();
    }
    if (output_weight) {
      require(output_weight->shape(0) == static_cast<size_t>(d_out),
              "output_weight has the wrong length");
      r.output_weight = output_weight->data();
    }
    return r;
  }

  double evaluate(const Input& x, nb::handle y, const std::string& loss,
                  const std::vector<double>& parameters,
                  const std::optional<InputVector>& sample_weight,
                  const std::optional<InputVector>& output_weight,
                  const std::optional<Vector>& grad, const std::optional<Matrix>& grad_x,
                  int n_threads) {
    check_threads(n_threads);
    const LossSpec l = loss_spec(loss, parameters, spec.output, d_out);
    const Rows<T> r = rows(x, y, l, sample_weight, output_weight);
    require(!grad || static_cast<int64_t>(grad->shape(0)) == model.n_params(),
            "grad has the wrong size");
    require(!grad_x || (grad_x->shape(0) == x.shape(0) && grad_x->shape(1) == x.shape(1)),
            "grad_x has the wrong shape");
    require(!grad_x || spec.n_members == 0, "members give no gradient of x");
    T* g = grad ? grad->data() : nullptr;
    T* gx = grad_x ? grad_x->data() : nullptr;
    return without_gil([&](const Poll& poll) {
      std::unique_lock lock(mutex);
      return model.evaluate(r, l, g, gx, n_threads, poll);
    });
  }

  using Cube = Array<T, 3>;
  using InputCube = Array<const T, 3>;
  template <class M>
  void check_outputs(const std::optional<M>& m, size_t n, bool by_x, const char* message) const {
    require(!m || (m->shape(0) == n && m->shape(1) == static_cast<size_t>(d_out)), message);
    if (m && by_x) require(m->shape(m->ndim() - 1) == static_cast<size_t>(spec.d_in), message);
  }
  template <class M>
  static auto data_of(const std::optional<M>& m) {
    return m ? m->data() : nullptr;
  }
  void check_coefficients(const std::optional<InputVector>& c, bool needed) const {
    require(c.has_value() || !needed, "curvature needs its coefficients");
    require(!c || c->shape(0) == static_cast<size_t>(spec.d_in),
            "coefficients has the wrong length");
  }

  void jet(const Input& x, const std::optional<InputVector>& coefficients,
           const std::optional<Matrix>& values, const std::optional<Cube>& jacobian,
           const std::optional<Matrix>& curvature, int n_threads) {
    check_x(x);
    check_threads(n_threads);
    check_coefficients(coefficients, curvature.has_value());
    check_outputs(values, x.shape(0), false, "values has the wrong shape");
    check_outputs(jacobian, x.shape(0), true, "jacobian has the wrong shape");
    check_outputs(curvature, x.shape(0), false, "curvature has the wrong shape");
    without_gil([&](const Poll& poll) {
      std::unique_lock lock(mutex);
      model.jet(x.data(), static_cast<int64_t>(x.shape(0)), data_of(coefficients), data_of(values),
                data_of(jacobian), data_of(curvature), n_threads, poll);
    });
  }
  void jet_backward(const Input& x, const std::optional<InputVector>& coefficients,
                    const std::optional<Input>& d_values,
                    const std::optional<InputCube>& d_jacobian,
                    const std::optional<Input>& d_curvature, const std::optional<Vector>& grad,
                    const std::optional<Matrix>& grad_x, int n_threads) {
    check_x(x);
    check_threads(n_threads);
    check_coefficients(coefficients, d_curvature.has_value());
    check_outputs(d_values, x.shape(0), false, "d_values has the wrong shape");
    check_outputs(d_jacobian, x.shape(0), true, "d_jacobian has the wrong shape");
    check_outputs(d_curvature, x.shape(0), false, "d_curvature has the wrong shape");
    require(!grad || static_cast<int64_t>(grad->shape(0)) == model.n_params(),
            "grad has the wrong size");
    require(!grad_x || (grad_x->shape(0) == x.shape(0) && grad_x->shape(1) == x.shape(1)),
            "grad_x has the wrong shape");
    without_gil([&](const Poll& poll) {
      std::unique_lock lock(mutex);
      model.jet_backward(x.data(), static_cast<int64_t>(x.shape(0)), data_of(coefficients),
                         data_of(d_values), data_of(d_jacobian), data_of(d_curvature),
                         data_of(grad), data_of(grad_x), n_threads, poll);
    });
  }
  void hessian_vector(const Input& x, const Input& v, const Cube& out, int n_threads) {
    check_x(x);
    check_x(v);
    check_threads(n_threads);
    require(v.shape(0) == x.shape(0), "v has the wrong number of rows");
    require(out.shape(0) == x.shape(0) && out.shape(1) == static_cast<size_t>(d_out) &&
                out.shape(2) == static_cast<size_t>(spec.d_in),
            "out has the wrong shape");
    without_gil([&](const Poll& poll) {
      std::unique_lock lock(mutex);
      model.hessian_vector(x.data(), v.data(), static_cast<int64_t>(x.shape(0)), out.data(),
                           n_threads, poll);
    });
  }
};

double number(const std::map<std::string, double>& hyper, const char* name, double otherwise) {
  const auto found = hyper.find(name);
  return found == hyper.end() ? otherwise : found->second;
}

template <class T>
struct PyRun {
  using Engine = PyEngine<T>;
  Engine& engine;
  RunSpec spec;
  Run<T> run;

  static RunSpec make(Engine& e, const std::string& loss, const std::vector<double>& parameters,
                      const std::string& optimizer, const std::map<std::string, double>& hyper,
                      int batch_size, uint64_t seed, int n_threads) {
    e.check_threads(n_threads);
    require(batch_size >= 1, "batch_size must be at least 1");
    require(optimizer == "adam" || optimizer == "sgd", "optimizer must be 'adam' or 'sgd'");
    for (const auto& [name, value] : hyper) {
      static const char* const known[] = {
          "beta_1",       "beta_2", "epsilon",    "epsilon_hat", "momentum", "nesterov",
          "weight_decay", "l2",     "l2_per_row", "value_scale", "bfloat16"};
      if (std::find(std::begin(known), std::end(known), name) == std::end(known))
        refuse("unknown hyperparameter '" + name + "'");
      require(std::isfinite(value), "hyperparameters must be finite");
    }
    const bool adam = optimizer == "adam";
    const bool bfloat16 = number(hyper, "bfloat16", 0) != 0;
    require(!bfloat16 || (sizeof(T) == 4 && half_kernels()), "bfloat16 is not available here");
    require(!bfloat16 || (loss != "eikonal" && loss != "sobolev"),
            "losses of derivatives have no bfloat16");
    return {loss_spec(loss, parameters, e.spec.output, e.d_out),
            adam ? Optimizer::kAdam : Optimizer::kSgd,
            adam ? number(hyper, "beta_1", 0.9) : number(hyper, "momentum", 0.0),
            number(hyper, "beta_2", 0.999),
            number(hyper, "epsilon", 1e-8),
            number(hyper, "epsilon_hat", 0) != 0,
            number(hyper, "nesterov", 0) != 0,
            number(hyper, "weight_decay", 0),
            number(hyper, "l2", 0),
            number(hyper, "l2_per_row", 0) != 0,
            number(hyper, "value_scale", 1),
            batch_size,
            seed,
            n_threads,
            bfloat16};
  }
  PyRun(Engine& e, const std::string& loss, const std::vector<double>& parameters,
        const std::string& optimizer, const std::map<std::string, double>& hyper, int batch_size,
        uint64_t seed, int n_threads)
      : engine(e),
        spec(make(e, loss, parameters, optimizer, hyper, batch_size, seed, n_threads)),
        run(e.model, spec) {
    require(!spec.bfloat16 || e.spec.n_members == 0, "members train in float32 or float64");
  }

  void check_steps(int64_t n, int64_t n_epochs, const Array<const double, 1>& lr,
                   const Array<double, 1>& losses) const {
    require(n_epochs >= 0, "n_epochs must not be negative");
    const int64_t n_batches = (n + spec.batch_size - 1) / spec.batch_size;
    require(static_cast<int64_t>(lr.shape(0)) == n_epochs * n_batches, "lr needs one value a step");
    require(static_cast<int64_t>(losses.shape(0)) == n_epochs, "losses needs one value an epoch");
  }

  int64_t epochs(const typename Engine::Input& x, nb::handle y,
                 const std::optional<typename Engine::InputVector>& sample_weight,
                 const std::optional<typename Engine::InputVector>& output_weight,
                 const std::optional<Array<const int64_t, 2>>& order, bool shuffle,
                 int64_t first_epoch, int64_t n_epochs, const Array<const double, 1>& lr,
                 const Array<double, 1>& losses, double deadline) {
    const Rows<T> r = engine.rows(x, y, spec.loss, sample_weight, output_weight);
    require(r.n <= std::numeric_limits<int32_t>::max(), "at most 2^31 - 1 rows");
    check_steps(r.n, n_epochs, lr, losses);
    if (order) {
      require(static_cast<int64_t>(order->shape(0)) == n_epochs &&
                  static_cast<int64_t>(order->shape(1)) == r.n,
              "order needs one row an epoch and one column a row of x");
      const int64_t* ids = order->data();
      require(std::all_of(ids, ids + order->size(), [&](int64_t i) { return i >= 0 && i < r.n; }),
              "order names a row that does not exist");
    }
    const EpochPlan<T> plan{r,         nullptr,       order ? order->data() : nullptr,
                            shuffle,   first_epoch,   n_epochs,
                            lr.data(), losses.data(), deadline};
    return without_gil([&](const Poll& poll) {
      std::unique_lock lock(engine.mutex);
      return run.epochs(plan, poll);
    });
  }

  void apply(const typename Engine::InputVector& gradient, double lr) {
    require(static_cast<int64_t>(gradient.shape(0)) == engine.model.n_params(),
            "gradient has the wrong size");
    nb::gil_scoped_release release;
    std::unique_lock lock(engine.mutex);
    run.apply(gradient.data(), lr);
  }

  void get_state(const typename Engine::Vector& m, const typename Engine::Vector& v) const {
    const int64_t n = engine.model.n_params();
    require(static_cast<int64_t>(m.shape(0)) == n && static_cast<int64_t>(v.shape(0)) == n,
            "wrong state size");
    run.get_state(m.data(), v.data());
  }
  void set_state(const typename Engine::InputVector& m, const typename Engine::InputVector& v,
                 int64_t step) {
    const int64_t n = engine.model.n_params();
    require(static_cast<int64_t>(m.shape(0)) == n && static_cast<int64_t>(v.shape(0)) == n,
            "wrong state size");
    require(step >= 0, "step must not be negative");
    run.set_state(m.data(), v.data(), step);
  }
};

// One member of train_together: run, subset, sample_weight, first_epoch, n_epochs, lr, losses,
// deadline, and what it is scored on: x, y, sample_weight, y_pred.
template <class T>
using Vector = std::optional<Array<const T, 1>>;
template <class T>
using HeldTuple = std::tuple<Array<const T, 2>, nb::object, Vector<T>, Array<T, 2>>;
template <class T>
using MemberTuple =
    std::tuple<PyRun<T>*, Vector<int32_t>, Vector<T>, int64_t, int64_t, Array<const double, 1>,
               Array<double, 1>, double, std::optional<HeldTuple<T>>>;

template <class T>
std::vector<std::pair<int64_t, double>> py_train_together(const std::vector<MemberTuple<T>>& tuples,
                                                          const Array<const T, 2>& x, nb::handle y,
                                                          int n_threads) {
  std::vector<Member<T>> members;
  std::vector<Rows<T>> held(tuples.size());
  std::map<PyEngine<T>*, std::unique_lock<ForkSafeMutex>> locks;  // by address: no deadlock
  Rows<T> shared{};
  require(n_threads >= 1, "n_threads must be at least 1");
  for (size_t i = 0; i < tuples.size(); ++i) {
    const auto& [run, subset, weight, first_epoch, n_epochs, lr, losses, deadline, score] =
        tuples[i];
    require(run != nullptr, "a member needs its run");
    PyEngine<T>& engine = run->engine;
    const PyEngine<T>& first = std::get<0>(tuples[0])->engine;
    if (i == 0) shared = engine.rows(x, y, run->spec.loss, std::nullopt, std::nullopt);
    require(engine.spec.d_in == first.spec.d_in && engine.d_out == first.d_out &&
                engine.model.n_params() == first.model.n_params() &&
                run->spec.loss.loss == std::get<0>(tuples[0])->spec.loss.loss &&
                run->spec.loss.parameters == std::get<0>(tuples[0])->spec.loss.parameters,
            "members must have one shape and one loss");
    require(locks.emplace(&engine, std::unique_lock(engine.mutex, std::defer_lock)).second,
            "a network can be one member only");
    EpochPlan<T> plan{shared,   nullptr,   nullptr,       true,    first_epoch,
                      n_epochs, lr.data(), losses.data(), deadline};
    require(shared.n <= std::numeric_limits<int32_t>::max(), "at most 2^31 - 1 rows");
    if (weight) {
      require(static_cast<int64_t>(weight->shape(0)) == shared.n,
              "sample_weight has the wrong length");
      plan.rows.row_weight = weight->data();
    }
    if (subset) {
      const int32_t* ids = subset->data();
      require(std::all_of(ids, ids + subset->size(),
                          [&](int32_t id) { return id >= 0 && id < shared.n; }),
              "subset names a row that does not exist");
      plan.rows.n = static_cast<int64_t>(subset->shape(0));
      plan.subset = ids;
    }
    run->check_steps(plan.rows.n, n_epochs, lr, losses);
    Member<T> member{&engine.model, &run->run, plan, nullptr, &run->spec.loss, nullptr};
    if (score) {
      const auto& [x_held, y_held, weight_held, y_pred] = *score;
      held[i] = engine.rows(x_held, y_held, run->spec.loss, weight_held, std::nullopt);
      require(y_pred.shape(0) == x_held.shape(0) &&
                  y_pred.shape(1) == static_cast<size_t>(engine.d_out),
              "y_pred has the wrong shape");
      member.held = &held[i];
      member.y_pred = y_pred.data();
    }
    members.push_back(member);
  }
  without_gil([&](const Poll& poll) {
    for (auto& [engine, lock] : locks) lock.lock();
    train_together(members, n_threads, poll);
  });
  std::vector<std::pair<int64_t, double>> results;
  for (const Member<T>& m : members) results.emplace_back(m.done, m.held_loss);
  return results;
}

template <class T>
void bind(nb::module_& m, const char* engine_name, const char* run_name) {
  using Engine = PyEngine<T>;
  nb::class_<Engine>(m, engine_name, "One network's packed parameters and its passes.")
      .def(nb::init<int, const std::vector<LayerTuple>&, const std::string&,
                    const std::optional<EncodingTuple>&, int>(),
           "d_in"_a, "layers"_a, "output"_a, "encoding"_a = nb::none(), "n_members"_a = 0)
      .def_prop_ro("n_params", [](const Engine& e) { return e.model.n_params(); })
      .def_prop_ro("isa", [](const Engine& e) { return e.isa; })
      .def("set_parameters", &Engine::set_parameters, nb::arg("theta").noconvert())
      .def("get_parameters", &Engine::get_parameters, nb::arg("out").noconvert())
      .def("forward", &Engine::forward, nb::arg("x").noconvert(), nb::arg("out").noconvert(),
           "n_threads"_a)
      .def("forward_half", &Engine::forward_half, nb::arg("x").noconvert(),
           nb::arg("out").noconvert(), "n_threads"_a)
      .def("predict", &Engine::predict, "x"_a.none(), "out"_a.none(), "n_threads"_a,
           "y_pred for clean arrays, None for others; n_threads is called when the work is long.")
      .def("trace", &Engine::trace, nb::arg("x").noconvert(), nb::arg("z").noconvert(),
           nb::arg("h").noconvert())
      .def("encode", &Engine::encode, nb::arg("x").noconvert(), "derivative"_a,
           nb::arg("out").noconvert(), "n_threads"_a)
      .def("encode_backward", &Engine::encode_backward, nb::arg("x").noconvert(), "derivative"_a,
           nb::arg("g").noconvert(), nb::arg("grad_table").noconvert(), "n_threads"_a)
      .def("evaluate", &Engine::evaluate, nb::arg("x").noconvert(), nb::arg("y").noconvert(),
           "loss"_a, "loss_params"_a, nb::arg("sample_weight").noconvert().none(),
           nb::arg("output_weight").noconvert().none(), nb::arg("grad").noconvert().none(),
           nb::arg("grad_x").noconvert().none(), "n_threads"_a)
      .def("jet", &Engine::jet, nb::arg("x").noconvert(),
           nb::arg("coefficients").noconvert().none(), nb::arg("values").noconvert().none(),
           nb::arg("jacobian").noconvert().none(), nb::arg("curvature").noconvert().none(),
           "n_threads"_a)
      .def("jet_backward", &Engine::jet_backward, nb::arg("x").noconvert(),
           nb::arg("coefficients").noconvert().none(), nb::arg("d_values").noconvert().none(),
           nb::arg("d_jacobian").noconvert().none(), nb::arg("d_curvature").noconvert().none(),
           nb::arg("grad").noconvert().none(), nb::arg("grad_x").noconvert().none(), "n_threads"_a)
      .def("hessian_vector", &Engine::hessian_vector, nb::arg("x").noconvert(),
           nb::arg("v").noconvert(), nb::arg("out").noconvert(), "n_threads"_a);
  using PyR = PyRun<T>;
  nb::class_<PyR>(m, run_name, "A training run: an engine and its optimiser's moments.")
      .def(nb::init<Engine&, const std::string&, const std::vector<double>&, const std::string&,
                    const std::map<std::string, double>&, int, uint64_t, int>(),
           nb::keep_alive<1, 2>(), "engine"_a, "loss"_a, "loss_params"_a, "optimizer"_a, "hyper"_a,
           "batch_size"_a, "seed"_a, "n_threads"_a)
      .def("epochs", &PyR::epochs, nb::arg("x").noconvert(), nb::arg("y").noconvert(),
           nb::arg("sample_weight").noconvert().none(), nb::arg("output_weight").noconvert().none(),
           nb::arg("order").noconvert().none(), "shuffle"_a, "first_epoch"_a, "n_epochs"_a,
           nb::arg("lr").noconvert(), nb::arg("losses").noconvert(), "deadline"_a)
      .def("apply", &PyR::apply, nb::arg("gradient").noconvert(), "lr"_a)
      .def_prop_ro("step", [](const PyR& r) { return r.run.step(); })
      .def("get_state", &PyR::get_state, nb::arg("m").noconvert(), nb::arg("v").noconvert())
      .def("set_state", &PyR::set_state, nb::arg("m").noconvert(), nb::arg("v").noconvert(),
           "step"_a)
      .def_prop_ro("n_parts", [](const PyR& r) { return r.run.n_parts(); });
  m.def("train_together", &py_train_together<T>, nb::arg("members").noconvert(),
        nb::arg("x").noconvert(), nb::arg("y").noconvert(), "n_threads"_a,
        "Train several networks on the rows of x; epochs done and held-out loss of each.");
}

template <class T>
void map_kernel(const Kernels<T>* kernels, int function, const Array<const T, 1>& x,
                const Array<T, 1>& y) {
  constexpr size_t kPad = 64 / sizeof(T);
  require(x.shape(0) == y.shape(0), "x and y differ in length");
  require(function >= 0 && function <= 11, "unknown function");
  alignas(64) T in[kPad], out[kPad];
  for (size_t i = 0; i < x.shape(0); i += kPad) {
    const size_t n = std::min(kPad, x.shape(0) - i);
    std::fill(in, in + kPad, T(1));
    std::copy_n(x.data() + i, n, in);
    kernels->map(function, in, out, kPad);
    std::copy_n(out, n, y.data() + i);
  }
}

}  // namespace
}  // namespace lamina

NB_MODULE(_native, m) {
  using namespace lamina;
  m.doc() = "lamina's engine. Use it through lamina.core.engine only.";
  bind<float>(m, "Engine32", "Run32");
  bind<double>(m, "Engine64", "Run64");
  bind_grouped(m);
  m.def("isa", &current_isa, "The instruction set in use for new engines.");
  m.def("isas", &available_isas, "Those this build and processor have, slowest first.");
  m.def(
      "require_memory", [](uint64_t bytes) { require_memory(static_cast<size_t>(bytes)); },
      "bytes"_a, "Raise MemoryError where so many bytes are more than what is free.");
  m.def("requested_isa", &requested_isa, "LAMINA_ISA when it could not be honoured, else ''.");
  m.def(
      "features",
      [] {
        nb::dict d;
        for (const auto& [name, has] : cpu_features()) d[name.c_str()] = has;
        return d;
      },
      nb::sig("def features() -> dict[str, bool]"),
      "What this processor and its operating system offer.");
  m.def("set_isa", [](const std::string& name) {
    if (!choose_isa(name)) refuse("instruction set '" + name + "' is not available here");
  });
  m.def(
      "peak_flops",
      [](const std::string& precision, int n_threads, double seconds) {
        static const std::map<std::string, Peak> kinds = {{"float32", Peak::kFloat32},
                                                          {"float64", Peak::kFloat64},
                                                          {"bfloat16", Peak::kBfloat16}};
        const Peak kind = look_up(kinds, precision, "precision");
        require(n_threads >= 1 && seconds >= 0, "n_threads and seconds must be positive");
        nb::gil_scoped_release release;
        return peak_flops(kind, n_threads, seconds);
      },
      "precision"_a, "n_threads"_a, "seconds"_a,
      "Operations a second of multiply-adds in registers; 0 where there are none.");
  m.def(
      "set_host", [](uintptr_t parallel) { set_host(reinterpret_cast<HostParallel>(parallel)); },
      "The address of GOMP_parallel in the process's OpenMP runtime, 0 for none.");
  m.def("has_host", [] { return host() != nullptr; });
  m.def("half_isas", &available_half_isas, "Units for products in bfloat16, slowest first.");
  m.def("half_isa", [] { return std::string(half_kernels() ? half_kernels()->name : ""); });
  m.def("set_half_isa", [](const std::string& name) {
    if (!choose_half_isa(name)) refuse("bfloat16 unit '" + name + "' is not available here");
  });
  m.def("byte_isas", &available_byte_isas, "Units for products of bytes, slowest first.");
  m.def("byte_isa", [] { return std::string(byte_kernels().name); });
  m.def("set_byte_isa", [](const std::string& name) {
    if (!choose_byte_isa(name)) refuse("byte unit '" + name + "' is not available here");
  });
  m.def("map32", [](int f, const Array<const float, 1>& x, const Array<float, 1>& y) {
    map_kernel<float>(current_kernels().f32, f, x, y);
  });
  m.def("map64", [](int f, const Array<const double, 1>& x, const Array<double, 1>& y) {
    map_kernel<double>(current_kernels().f64, f, x, y);
  });
}
