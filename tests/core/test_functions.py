"""Activations and output units against SciPy, PyTorch and finite differences."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
import torch.nn.functional as F  # noqa: N812
from tests.tolerances import (
    assert_close,
    assert_small,
    difference_step,
    finite_difference,
    rounding,
)

from lamina.core.functions import (
    ACTIVATIONS,
    OUTPUTS,
    log_softmax,
    normal_cdf,
    normal_pdf,
    sigmoid,
    softmax,
    softplus,
)

Z = np.concatenate([np.linspace(-6.0, 6.0, 201), [-0.0, 1e-9, -1e-9]])
SMOOTH_Z = Z[np.abs(Z) > 0.01]  # no kink within a difference step
TAILS = np.array([-700.0, -40.0, -20.0, -8.0, 8.0, 20.0, 40.0, 700.0])
F64 = rounding(np.float64, 8)

TORCH = {
    "identity": lambda z: z * 1.0,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": F.relu,
    "leaky_relu": lambda z: F.leaky_relu(z, 0.01),
    "softplus": F.softplus,
    "gelu": F.gelu,
    "gelu_tanh": lambda z: F.gelu(z, approximate="tanh"),
    "silu": F.silu,
    "selu": F.selu,
    "mish": F.mish,
    "sine": torch.sin,
    "squared_relu": lambda z: F.relu(z) ** 2,
}


def test_the_names_are_those_of_the_public_contract():
    names = "identity step sigmoid tanh relu leaky_relu softplus gelu gelu_tanh silu selu mish sine"
    assert list(ACTIVATIONS) == [*names.split(), "squared_relu"]
    assert list(OUTPUTS) == ["identity", "sigmoid", "softmax", "exp", "step"]
    assert all(name == a.name for name, a in ACTIVATIONS.items())
    assert all(name == o.name for name, o in OUTPUTS.items())


@pytest.mark.parametrize("name", TORCH)
def test_activation_and_derivative_match_pytorch(name):
    z = torch.tensor(Z, requires_grad=True)
    h = TORCH[name](z)
    h.sum().backward()
    assert_close(ACTIVATIONS[name].value(Z), h.detach().numpy(), F64, name)
    assert_close(ACTIVATIONS[name].derivative(Z), z.grad.numpy(), F64, name)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivative_matches_finite_differences(name):
    h = difference_step()
    value = ACTIVATIONS[name].value
    numeric = (value(SMOOTH_Z + h) - value(SMOOTH_Z - h)) / (2 * h)
    assert_close(ACTIVATIONS[name].derivative(SMOOTH_Z), numeric, finite_difference(), name)


@pytest.mark.parametrize(
    ("ours", "scipys"),
    [
        (sigmoid, scipy.special.expit),
        (softplus, lambda z: -scipy.special.log_expit(-z)),
        (normal_cdf, scipy.special.ndtr),
        (normal_pdf, scipy.stats.norm.pdf),
        (ACTIVATIONS["gelu"].value, lambda z: z * scipy.special.ndtr(z)),
        (ACTIVATIONS["silu"].value, lambda z: z * scipy.special.expit(z)),
        (ACTIVATIONS["mish"].value, lambda z: z * np.tanh(-scipy.special.log_expit(-z))),
    ],
)
def test_each_value_keeps_its_relative_accuracy(ours, scipys):
    z = np.linspace(-12.0, 12.0, 100)  # without 0, where some of them vanish
    assert_close(ours(z) / scipys(z), np.ones(100), rounding(np.float64, 64))


@pytest.mark.parametrize("function", [*ACTIVATIONS.values(), *OUTPUTS.values()])
def test_nothing_overflows_in_the_tails(function):
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        value = function.value(TAILS[np.newaxis])
        assert np.isfinite(value).all()
        if hasattr(function, "derivative"):
            assert np.isfinite(function.derivative(TAILS)).all()


@pytest.mark.parametrize("function", [*ACTIVATIONS.values(), *OUTPUTS.values()])
def test_nan_goes_through_so_that_divergence_shows(function):
    value = function.value(np.array([[np.nan, 1.0], [0.5, 2.0]]))
    assert np.isnan(value[0, 0])
    assert np.isfinite(value[1]).all()


def test_values_and_derivatives_at_the_kinks():
    zero = np.array([0.0, -0.0])
    for name, value, derivative in [
        ("step", 1.0, 0.0),
        ("relu", 0.0, 0.0),
        ("leaky_relu", 0.0, 0.01),
        ("squared_relu", 0.0, 0.0),
    ]:
        assert (ACTIVATIONS[name].value(zero) == value).all(), name
        assert (ACTIVATIONS[name].derivative(zero) == derivative).all(), name
    assert (ACTIVATIONS["step"].value(np.array([-1e-300, 1e-300])) == [0.0, 1.0]).all()


def test_softmax_and_its_logarithm_match_scipy():
    z = np.random.default_rng(0).normal(0, 300, (50, 7))
    assert_close(softmax(z), scipy.special.softmax(z, axis=1), F64)
    assert_close(log_softmax(z), scipy.special.log_softmax(z, axis=1), F64)
    assert_close(softmax(z).sum(axis=1), np.ones(50), F64)


@pytest.mark.parametrize("name", OUTPUTS)
def test_output_pullback_matches_finite_differences(name):
    rng = np.random.default_rng(1)
    z, g, direction = rng.normal(size=(3, 40, 5))
    output, h = OUTPUTS[name], difference_step()
    change = (output.value(z + h * direction) - output.value(z - h * direction)) / (2 * h)
    numeric = (g * change).sum(axis=1)
    analytic = (output.pullback(output.value(z), g) * direction).sum(axis=1)
    assert_close(analytic, numeric, finite_difference(5), name)


def test_softmax_pullback_of_a_constant_vanishes():
    p = softmax(np.random.default_rng(2).normal(size=(10, 4)))
    assert_small(OUTPUTS["softmax"].pullback(p, np.full((10, 4), 3.0)), 3.0, F64)
