// What the files that see Python share: array types, refusals, names, and Ctrl-C.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <map>
#include <string>

#include "engine.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace lamina {

void bind_grouped(nb::module_& m);  // bindings_grouped.cpp

template <class E, int Dimensions>
using Array = nb::ndarray<E, nb::ndim<Dimensions>, nb::c_contig, nb::device::cpu>;

[[noreturn]] inline void refuse(const std::string& message) {
  throw nb::value_error(message.c_str());
}
inline void require(bool condition, const char* message) {
  if (!condition) refuse(message);
}

inline const std::map<std::string, Activation> kActivations = {
    {"identity", kIdentity},  {"step", kStep},
    {"sigmoid", kSigmoid},    {"tanh", kTanh},
    {"relu", kRelu},          {"leaky_relu", kLeakyRelu},
    {"softplus", kSoftplus},  {"gelu", kGelu},
    {"gelu_tanh", kGeluTanh}, {"silu", kSilu},
    {"selu", kSelu},          {"mish", kMish},
    {"sine", kSine},          {"squared_relu", kSquaredRelu}};
template <class Value>
Value look_up(const std::map<std::string, Value>& names, const std::string& name,
              const char* what) {
  const auto found = names.find(name);
  if (found == names.end()) refuse(std::string("unknown ") + what + " '" + name + "'");
  return found->second;
}

// Ctrl-C is looked for from the calling thread every 50 ms; a signal's exception waits in `raised`.
struct Signals {
  bool raised = false;
  Poll poll() {
    return [this] {
      nb::gil_scoped_acquire gil;
      raised = PyErr_CheckSignals() != 0;
      return raised;
    };
  }
};
// Runs native work without the GIL; turns a stop that a signal asked for into that signal's
// exception.
template <class F>
auto without_gil(F work) {
  Signals signals;
  const Poll poll = signals.poll();
  try {
    nb::gil_scoped_release release;
    return work(poll);
  } catch (const Interrupted&) {
    if (signals.raised) throw nb::python_error();
    throw;
  }
}

}  // namespace lamina
