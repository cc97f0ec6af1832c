"""First parameters: variances, bounds and orthogonality from the papers, and repeatability."""

import math

import numpy as np
import pytest
import scipy.stats
from tests.tolerances import assert_close, assert_same_bits, assert_small, rounding, sampling

from lamina.core.errors import SpecError
from lamina.core.functions import ACTIVATIONS
from lamina.core.initialize import OMEGA_0, SCHEMES, initialize, orthogonal
from lamina.core.reference import forward, unpack
from lamina.core.spec import NetworkSpec

D_OUT, FAN_IN = 160, 120
N_DRAWS = D_OUT * FAN_IN
VARIANCE = {
    "he": 2 / FAN_IN,
    "glorot": 2 / (FAN_IN + D_OUT),
    "lecun": 1 / FAN_IN,
    "orthogonal": 1 / D_OUT,  # FAN_IN columns of length 1 over D_OUT rows
    "siren": 2 / FAN_IN,
}


def draw(scheme, d_out=D_OUT, fan_in=FAN_IN, seed=0):
    return SCHEMES[scheme](np.random.default_rng(seed), d_out, fan_in)


def layers(seed=0, scheme=None, **network):
    spec = NetworkSpec.create(**{"d_in": 100, "widths": (200, 300), "d_out": 50, **network})
    return unpack(spec, initialize(spec, seed, scheme))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_mean_and_variance_are_those_of_the_paper(scheme):
    weight = draw(scheme)
    assert weight.shape == (D_OUT, FAN_IN)
    ratio = weight.var() / VARIANCE[scheme]
    assert abs(ratio - 1) < sampling(N_DRAWS)
    assert abs(weight.mean()) < 5 * math.sqrt(VARIANCE[scheme] / N_DRAWS)


@pytest.mark.parametrize("scheme", ["he", "lecun"])
def test_normal_schemes_are_normal(scheme):
    scaled = draw(scheme).ravel() / math.sqrt(VARIANCE[scheme])
    assert scipy.stats.kstest(scaled, "norm").pvalue > 1e-3


@pytest.mark.parametrize("scheme", ["glorot", "siren"])
def test_uniform_schemes_are_uniform(scheme):
    bound = math.sqrt(3 * VARIANCE[scheme])
    scaled = draw(scheme).ravel() / bound
    assert scipy.stats.kstest(scaled, scipy.stats.uniform(-1, 2).cdf).pvalue > 1e-3


@pytest.mark.parametrize(("d_out", "fan_in"), [(5, 5), (7, 3), (3, 7), (1, 4), (4, 1), (1, 1)])
def test_orthogonal_rows_or_columns_are_orthonormal(d_out, fan_in):
    weight = draw("orthogonal", d_out, fan_in)
    assert weight.shape == (d_out, fan_in)
    product = weight @ weight.T if d_out <= fan_in else weight.T @ weight
    assert_close(product, np.eye(min(d_out, fan_in)), rounding(np.float64, max(d_out, fan_in)))


def test_orthogonal_draws_both_signs_of_every_column():
    rng = np.random.default_rng(1)
    traces = [np.trace(orthogonal(rng, 3, 3)) for _ in range(2000)]
    # The trace of a uniform orthogonal matrix has mean 0 and variance 1 (Diaconis and
    # Shahshahani 1994); LAPACK's signs alone would bias it.
    assert abs(np.mean(traces)) < 5 / math.sqrt(2000)
    assert abs(np.var(traces) - 1) < 2 * sampling(2000)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_each_hidden_layer_follows_its_activation(activation):
    (w_1, _), (w_2, _), (w_3, b_3) = layers(activation=activation)
    glorot = {"identity", "step", "sigmoid", "tanh"}
    scheme = {"selu": "lecun", "sine": "siren"}.get(
        activation, "glorot" if activation in glorot else "he"
    )
    variance = {"he": 2 / 200, "glorot": 2 / (200 + 300), "lecun": 1 / 200, "siren": 2 / 200}
    assert abs(w_2.var() / variance[scheme] - 1) < sampling(w_2.size)
    output = 2 / 300 / OMEGA_0**2 if activation == "sine" else 2 / (300 + 50)
    assert abs(w_3.var() / output - 1) < sampling(w_3.size)
    assert b_3.any() == (activation == "sine")
    assert w_1.shape == (200, 100)


def test_mixed_activations_take_a_scheme_each():
    (w_1, b_1), (w_2, _), (w_3, _) = layers(activation=("tanh", "relu"))
    assert abs(w_1.var() / (2 / 300) - 1) < sampling(w_1.size)
    assert abs(w_2.var() / (2 / 200) - 1) < sampling(w_2.size)
    assert abs(w_3.var() / (2 / 350) - 1) < sampling(w_3.size)
    assert not b_1.any()


def test_skips_count_in_the_fan_in():
    *_, (w_3, _) = layers(skips={3: (0,)}, scheme="he")
    assert w_3.shape == (50, 400)
    assert abs(w_3.var() / (2 / 400) - 1) < sampling(w_3.size)


def test_a_siren_sees_arcsine_activations_in_every_layer():
    """Sitzmann 2020, theorem 1.8: W h is near N(0, 1) and sin z arcsine, at any depth."""
    spec = NetworkSpec.create(2, (256,) * 5, 1, activation="sine", dtype="float64")
    x = np.random.default_rng(2).uniform(-1, 1, (400, 2))
    theta = initialize(spec, 3)
    trace = forward(spec, theta, x)
    (w_1, b_1), (_, b_2), *_, (w_6, b_6) = parameters = unpack(spec, theta)
    for layer in range(2, 6):
        without_bias = trace.z[layer - 1] - parameters[layer - 1][1]
        assert abs(without_bias.std() - 1) < 0.1, layer
        assert abs(trace.h[layer - 1].std() - math.sqrt(0.5)) < 0.05, layer
    assert 0.9 * OMEGA_0 / 2 < np.abs(w_1).max() <= OMEGA_0 / 2
    assert np.abs(b_1).max() <= OMEGA_0 / math.sqrt(2)
    assert 0.9 * OMEGA_0 / 16 < np.abs(b_2).max() <= OMEGA_0 / 16
    assert np.abs(w_6).max() <= math.sqrt(6 / 256) / OMEGA_0
    assert np.abs(b_6).max() <= 1 / 16


@pytest.mark.parametrize(("activation", "scheme"), [("relu", "he"), ("selu", "lecun")])
def test_signals_keep_their_size_through_ten_layers(activation, scheme):
    spec = NetworkSpec.create(256, (256,) * 10, 1, activation=activation, dtype="float64")
    x = np.random.default_rng(4).normal(size=(200, 256))
    trace = forward(spec, initialize(spec, 5, scheme), x)
    ratio = (trace.h[9] ** 2).mean() / (trace.h[0] ** 2).mean()
    assert 0.5 < ratio < 2.0


def test_orthogonal_identity_layers_keep_lengths():
    spec = NetworkSpec.create(32, (32,) * 4, 32, activation="identity", dtype="float64")
    x = np.random.default_rng(6).normal(size=(10, 32))
    y_pred = forward(spec, initialize(spec, 7, "orthogonal"), x).h[-1]
    lengths = np.linalg.norm(x, axis=1)
    assert_close(np.linalg.norm(y_pred, axis=1), lengths, rounding(np.float64, 5 * 32))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_seed_repeats_and_a_generator_moves_on(dtype):
    spec = NetworkSpec.create(3, (4,), 2, dtype=dtype)
    theta = initialize(spec, 11)
    assert theta.dtype == dtype
    assert theta.flags.c_contiguous
    assert_same_bits(initialize(spec, np.random.default_rng(11)), theta)
    generator = np.random.default_rng(11)
    assert (initialize(spec, generator) != initialize(spec, generator)).any()
    biases = [theta[bias] for _, bias in spec.slices()]
    assert_small(np.concatenate(biases), 1.0, 0.0)


def test_both_dtypes_draw_the_same_network():
    small, large = (NetworkSpec.create(3, (4,), 2, dtype=d) for d in ("float32", "float64"))
    assert_close(initialize(small, 1), initialize(large, 1), rounding(np.float32))


def test_an_unknown_scheme_is_named():
    spec = NetworkSpec.create(3, (4,), 2)
    with pytest.raises(SpecError, match=r"scheme to be one of he, glorot, .*got 'xavier'"):
        initialize(spec, 0, "xavier")
