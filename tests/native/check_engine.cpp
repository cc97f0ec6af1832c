// The engine without Python: finite differences, batch independence, training, on every instruction
// set that runs here. Built by `make cross` for arm64 and run under an emulator; `make asan` covers
// x86-64 through the Python tests.
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <vector>

#include "dispatch.h"
#include "engine.h"

using namespace lamina;

namespace {

int passed = 0, failed = 0;
void expect(bool good, const char* what, double value) {
  ++(good ? passed : failed);
  if (!good) std::printf("FAILED on %s: %s (%g)\n", current_isa().c_str(), what, value);
}

std::vector<double> normal(size_t n, unsigned seed, double scale) {
  std::mt19937 random(seed);
  std::normal_distribution<double> draw(0, scale);
  std::vector<double> v(n);
  for (double& x : v) x = draw(random);
  return v;
}
template <class T>
std::vector<T> cast(const std::vector<double>& v) {
  return std::vector<T>(v.begin(), v.end());
}

// 7 -> 19 -> 19 (residual) -> 3 with a skip from the input.
Spec network(Activation activation, Output output) {
  return {7,
          {{19, activation, {0}, false, 0},
           {19, activation, {1}, true, 0},
           {3, kIdentity, {2, 0}, false, 0}},
          output};
}

void gradients_match_differences(Activation activation) {
  const int n = 23;
  Model<double> model(network(activation, kOutSoftmax));
  const auto size = static_cast<size_t>(model.n_params());
  std::vector<double> theta = normal(size, 1, 0.3), grad(size), x = normal(n * 7, 2, 1),
                      grad_x(x.size());
  std::vector<int32_t> classes(n);
  for (int i = 0; i < n; ++i) classes[i] = i % 3;
  const Rows<double> rows{n, x.data(), nullptr, classes.data(), nullptr, nullptr};
  const LossSpec loss{kCrossEntropy, {0.0}};
  model.set_parameters(theta.data());
  model.evaluate(rows, loss, grad.data(), grad_x.data(), 2, nullptr);
  const std::vector<double> direction = normal(size, 3, 1 / std::sqrt(static_cast<double>(size)));
  double slope = 0, difference = 0, norm = 0;
  for (size_t i = 0; i < size; ++i) slope += grad[i] * direction[i], norm += grad[i] * grad[i];
  for (int sign : {1, -1}) {
    std::vector<double> moved = theta;
    for (size_t i = 0; i < size; ++i) moved[i] += sign * 1e-6 * direction[i];
    model.set_parameters(moved.data());
    difference += sign * model.evaluate(rows, loss, nullptr, nullptr, 1, nullptr) / 2e-6;
  }
  const double error = std::abs(slope - difference) / std::sqrt(norm);
  expect(error < 1e-6 && norm > 0, "gradient against differences", error);
}

template <class T>
void rows_do_not_depend_on_their_batch() {
  Model<T> model(network(kTanh, kOutSigmoid));
  const std::vector<T> theta = cast<T>(normal(static_cast<size_t>(model.n_params()), 4, 0.3));
  const int n = 700;
  const std::vector<T> x = cast<T>(normal(n * 7, 5, 1));
  std::vector<T> whole(n * 3), one(3);
  model.set_parameters(theta.data());
  model.forward(x.data(), n, whole.data(), 2, nullptr);
  int different = 0;
  for (int i = 0; i < n; i += 13) {
    model.forward(x.data() + i * 7, 1, one.data(), 1, nullptr);
    for (int c = 0; c < 3; ++c) different += one[c] != whole[i * 3 + c];
  }
  expect(different == 0, "bits depend on the batch", different);
}

template <class T>
void training_learns(Optimizer optimizer) {
  Model<T> model(network(kRelu, kOutIdentity));
  const std::vector<T> theta = cast<T>(normal(static_cast<size_t>(model.n_params()), 6, 0.2));
  const int n = 600, batch = 50, n_epochs = 30;
  const std::vector<T> x = cast<T>(normal(n * 7, 7, 1));
  std::vector<T> y(n * 3);
  for (int i = 0; i < n; ++i)
    for (int c = 0; c < 3; ++c) y[i * 3 + c] = x[i * 7 + c] * x[i * 7 + 3];
  model.set_parameters(theta.data());
  const bool adam = optimizer == Optimizer::kAdam;
  Run<T> run(
      model,
      {{kSquared, {}}, optimizer, 0.9, 0.999, 1e-8, false, true, 0, 0, false, 1, batch, 1, 2});
  const std::vector<double> lr(n_epochs * n / batch, adam ? 0.01 : 0.02);
  std::vector<double> losses(n_epochs);
  const Rows<T> rows{n, x.data(), y.data(), nullptr, nullptr, nullptr};
  const int64_t done = run.epochs({rows, nullptr, nullptr, true, 0, n_epochs, lr.data(),
                                   losses.data(), std::numeric_limits<double>::infinity()},
                                  nullptr);
  expect(done == n_epochs && losses.back() < 0.1 * losses.front(), "training learns",
         losses.back());
}

}  // namespace

int main() {
  for (const std::string& isa : available_isas()) {
    choose_isa(isa);
    for (Activation a : {kRelu, kGelu, kTanh, kSine, kMish, kSelu, kSoftplus})
      gradients_match_differences(a);
    rows_do_not_depend_on_their_batch<float>();
    rows_do_not_depend_on_their_batch<double>();
    for (Optimizer o : {Optimizer::kAdam, Optimizer::kSgd})
      training_learns<float>(o), training_learns<double>(o);
    std::printf("checked %s\n", isa.c_str());
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
