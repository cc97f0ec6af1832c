// Grouped products for Python: shapes and expert ids are checked here, once.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <vector>

#include "bindings.h"
#include "dispatch.h"
#include "grouped.h"
#include "threads.h"

namespace lamina {
namespace {

using GroupedLayerTuple = std::tuple<int, std::string, bool>;

GroupedSpec grouped_spec(int n_experts, int d_in, const std::vector<GroupedLayerTuple>& layers) {
  constexpr int kMost = 1 << 24;  // widths; keeps every product of two of them within 64 bits
  require(n_experts >= 1 && n_experts <= kMost, "n_experts must be 1 to 2^24");
  require(d_in >= 1 && d_in <= kMost, "d_in must be 1 to 2^24");
  require(!layers.empty(), "at least one layer is needed");
  GroupedSpec spec{n_experts, d_in, {}};
  for (const auto& [d_out, activation, gated] : layers) {
    require(d_out >= 1 && d_out <= kMost, "a layer's width must be 1 to 2^24");
    spec.layers.push_back({d_out, look_up(kActivations, activation, "activation"), gated});
  }
  return spec;
}

template <class T, class Products>  // Grouped<T> or GroupedHalf
struct PyGrouped {
  // weight (n_experts, d_out, d_in), bias (n_experts, d_out), gate as weight, gate_bias as bias
  template <class E>
  using LayerArrays = std::tuple<std::optional<Array<E, 3>>, std::optional<Array<E, 2>>,
                                 std::optional<Array<E, 3>>, std::optional<Array<E, 2>>>;
  using InputLayers = std::vector<LayerArrays<const T>>;
  using OutputLayers = std::vector<LayerArrays<T>>;
  using Input = Array<const T, 2>;
  using Matrix = Array<T, 2>;
  using Experts = std::optional<Array<const int32_t, 2>>;
  using Offsets = std::optional<Array<const int64_t, 1>>;
  using Share = std::optional<Input>;
  using Pack = std::shared_ptr<const typename Products::Pack>;
  using Pass = std::shared_ptr<const typename Products::Pass>;
  // Opaque to Python. What they hold is never changed, so calls may share them.
  struct PyPack {
    Pack pack;
  };
  struct PyPass {
    Pass pass;
    int64_t n;
    int top_k;
  };

  Products grouped;
  bool on_host;  // whether its products run on the host's threads
  PyGrouped(int n_experts, int d_in, const std::vector<GroupedLayerTuple>& layers, bool on_host)
      : grouped(checked(grouped_spec(n_experts, d_in, layers))), on_host(on_host) {}
  template <class Body>
  auto run(Body body) const {
    return without_gil([&](const Poll& poll) {
      const HostTeams teams(on_host);
      return body(poll);
    });
  }
  static GroupedSpec checked(GroupedSpec spec) {
    require(!std::is_same_v<Products, GroupedHalf> || half_kernels(),
            "bfloat16 is not available here");
    return spec;
  }

  template <class E>
  std::vector<GroupedArrays<E*>> arrays(const std::vector<LayerArrays<E>>& layers,
                                        bool needed) const {
    const GroupedSpec& spec = grouped.spec();
    require(layers.size() == spec.layers.size(), "one tuple of arrays a layer is needed");
    std::vector<GroupedArrays<E*>> pointers;
    size_t d_in = spec.d_in;
    const size_t n_experts = spec.n_experts;
    for (size_t l = 0; l < layers.size(); ++l) {
      const GroupedLayer& layer = spec.layers[l];
      const auto& [weight, bias, gate, gate_bias] = layers[l];
      const size_t d_out = layer.d_out;
      auto matrix = [&](const auto& a) -> E* {
        if (!a) return nullptr;
        require(a->shape(0) == n_experts && a->shape(1) == d_out && a->shape(2) == d_in,
                "a weight has the wrong shape");
        return a->data();
      };
      auto vector = [&](const auto& a) -> E* {
        if (!a) return nullptr;
        require(a->shape(0) == n_experts && a->shape(1) == d_out, "a bias has the wrong shape");
        return a->data();
      };
      require(!needed || (weight && gate.has_value() == layer.gated),
              "every layer needs its weight, and a gated one its gate");
      require(layer.gated || (!gate && !gate_bias), "only a gated layer has a gate");
      pointers.push_back({matrix(weight), vector(bias), matrix(gate), vector(gate_bias)});
      d_in = d_out;
    }
    return pointers;
  }

  Route<T> route(const Input& x, const Matrix& out, const Experts& experts, const Offsets& offsets,
                 const Share& share, int n_threads) const {
    const GroupedSpec& spec = grouped.spec();
    const size_t n = x.shape(0);
    require(n_threads >= 1, "n_threads must be at least 1");
    require(x.shape(1) == static_cast<size_t>(spec.d_in), "x has the wrong number of columns");
    require(out.shape(0) == n && out.shape(1) == static_cast<size_t>(spec.d_out()),
            "out has the wrong shape");
    require(experts.has_value() != offsets.has_value(), "either experts or offsets are needed");
    Route<T> r{static_cast<int64_t>(n), 1, nullptr, nullptr, nullptr};
    if (experts) {
      require(experts->shape(0) == n && experts->shape(1) >= 1, "experts has the wrong shape");
      require(experts->size() <= std::numeric_limits<int32_t>::max(), "at most 2^31 - 1 rows");
      r.expert = experts->data();
      require(std::all_of(r.expert, r.expert + experts->size(),
                          [&](int32_t e) { return e >= 0 && e < spec.n_experts; }),
              "an expert id is out of range");
      r.top_k = static_cast<int>(experts->shape(1));
    } else {
      require(n <= std::numeric_limits<int32_t>::max(), "at most 2^31 - 1 rows");
      require(offsets->shape(0) == static_cast<size_t>(spec.n_experts) + 1,
              "offsets needs one value an expert and one more");
      r.offsets = offsets->data();
      require(r.offsets[0] == 0 && r.offsets[spec.n_experts] == r.n &&
                  std::is_sorted(r.offsets, r.offsets + spec.n_experts + 1),
              "offsets must rise from 0 to the number of rows");
    }
    if (share) {
      require(share->shape(0) == n && share->shape(1) == static_cast<size_t>(r.top_k),
              "share has the wrong shape");
      r.share = share->data();
    }
    return r;
  }

  PyPack pack(const InputLayers& weights, int n_threads) const {
    require(n_threads >= 1, "n_threads must be at least 1");
    const auto w = arrays<const T>(weights, true);
    return {run([&](const Poll&) { return grouped.pack(w, n_threads); })};
  }
  void forward(const PyPack& pack, const Input& x, const Matrix& out, const Experts& experts,
               const Offsets& offsets, const Share& share, int n_threads) const {
    const Route<T> r = route(x, out, experts, offsets, share, n_threads);
    run([&](const Poll& poll) {
      grouped.forward(*pack.pack, r, x.data(), out.data(), n_threads, poll);
    });
  }
  PyPass forward_to_learn(const InputLayers& weights, const Input& x, const Matrix& out,
                          const Experts& experts, const Offsets& offsets, const Share& share,
                          int n_threads) const {
    const Route<T> r = route(x, out, experts, offsets, share, n_threads);
    const auto w = arrays<const T>(weights, true);
    return {run([&](const Poll& poll) {
              return grouped.forward(w, r, x.data(), out.data(), n_threads, poll);
            }),
            r.n, r.top_k};
  }
  void backward(const PyPass& pass, const InputLayers& weights, const Input& grad_out,
                const std::optional<Matrix>& grad_x, const std::optional<Matrix>& grad_share,
                const OutputLayers& gradients, bool keep_idle, int n_threads) const {
    const size_t n = static_cast<size_t>(pass.n);
    require(n_threads >= 1, "n_threads must be at least 1");
    require(
        grad_out.shape(0) == n && grad_out.shape(1) == static_cast<size_t>(grouped.spec().d_out()),
        "grad_out has the wrong shape");
    require(!grad_x || (grad_x->shape(0) == n &&
                        grad_x->shape(1) == static_cast<size_t>(grouped.spec().d_in)),
            "grad_x has the wrong shape");
    require(!grad_share || (grad_share->shape(0) == n &&
                            grad_share->shape(1) == static_cast<size_t>(pass.top_k)),
            "grad_share has the wrong shape");
    const auto w = arrays<const T>(weights, true);
    const auto g = arrays<T>(gradients, false);
    run([&](const Poll& poll) {
      grouped.backward(*pass.pass, w, grad_out.data(), grad_x ? grad_x->data() : nullptr,
                       grad_share ? grad_share->data() : nullptr, g, keep_idle, n_threads, poll);
    });
  }
};

template <class T, class Products>
void bind(nb::module_& m, const char* name, const char* pack_name, const char* pass_name) {
  using G = PyGrouped<T, Products>;
  nb::class_<typename G::PyPack>(m, pack_name, "Experts' weights, laid out for Grouped.forward.");
  nb::class_<typename G::PyPass>(m, pass_name, "What a forward pass leaves for its backward pass.");
  nb::class_<G>(m, name, "Products of rows with the weights of their experts.")
      .def(nb::init<int, int, const std::vector<GroupedLayerTuple>&, bool>(), "n_experts"_a,
           "d_in"_a, "layers"_a, "on_host"_a = false)
      .def("pack", &G::pack, nb::arg("weights").noconvert(), "n_threads"_a)
      .def("forward", &G::forward, "pack"_a, nb::arg("x").noconvert(), nb::arg("out").noconvert(),
           nb::arg("experts").noconvert().none(), nb::arg("offsets").noconvert().none(),
           nb::arg("share").noconvert().none(), "n_threads"_a)
      .def("forward_to_learn", &G::forward_to_learn, nb::arg("weights").noconvert(),
           nb::arg("x").noconvert(), nb::arg("out").noconvert(),
           nb::arg("experts").noconvert().none(), nb::arg("offsets").noconvert().none(),
           nb::arg("share").noconvert().none(), "n_threads"_a)
      .def("backward", &G::backward, "passed"_a, nb::arg("weights").noconvert(),
           nb::arg("grad_out").noconvert(), nb::arg("grad_x").noconvert().none(),
           nb::arg("grad_share").noconvert().none(), nb::arg("gradients").noconvert(),
           "keep_idle"_a, "n_threads"_a);
}

// Without learning.
void bind_bytes(nb::module_& m) {
  using G = PyGrouped<float, GroupedByte>;
  nb::class_<G::PyPack>(m, "GroupedPack8", "Experts' weights in bytes, for Grouped8.forward.");
  nb::class_<G>(m, "Grouped8", "Products of rows with the weights of their experts, in bytes.")
      .def(nb::init<int, int, const std::vector<GroupedLayerTuple>&, bool>(), "n_experts"_a,
           "d_in"_a, "layers"_a, "on_host"_a = false)
      .def("pack", &G::pack, nb::arg("weights").noconvert(), "n_threads"_a)
      .def("forward", &G::forward, "pack"_a, nb::arg("x").noconvert(), nb::arg("out").noconvert(),
           nb::arg("experts").noconvert().none(), nb::arg("offsets").noconvert().none(),
           nb::arg("share").noconvert().none(), "n_threads"_a);
}

}  // namespace

void bind_grouped(nb::module_& m) {
  bind<float, Grouped<float>>(m, "Grouped32", "GroupedPack32", "GroupedPass32");
  bind<double, Grouped<double>>(m, "Grouped64", "GroupedPack64", "GroupedPass64");
  bind<float, GroupedHalf>(m, "Grouped16", "GroupedPack16", "GroupedPass16");
  bind_bytes(m);
}

}  // namespace lamina
