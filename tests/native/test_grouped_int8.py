"""Grouped products of bytes against their slow twin, on every instruction set and unit."""

import numpy as np
import pytest
from tests.native.test_grouped import SHAPES, draw, make_weights
from tests.tolerances import assert_same_bits

from lamina import _native
from lamina.core.errors import SpecError
from lamina.core.grouped import ExpertFeedForward, Experts, ExpertWeights, GroupedLinear
from lamina.core.reference_grouped import grouped, quantised


@pytest.fixture(params=[*((isa, "plain") for isa in _native.isas()), ("avx512", "avx512_vnni")])
def unit(request):
    isa, name = request.param
    before, unit_before = _native.isa(), _native.byte_isa()
    if name != "plain" and name not in _native.byte_isas():
        pytest.skip(f"this machine has no {name}")
    _native.set_isa(isa)
    _native.set_byte_isa(name)
    yield name
    _native.set_isa(before)
    _native.set_byte_isa(unit_before)


def distance(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


WIDE = (2, 257, [(300, "gelu", True), (130, "identity", False)], 23, 1)  # several groups of columns


@pytest.mark.parametrize("shape", [*SHAPES[:-2], WIDE], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_int8_matches_its_slow_twin(unit, shape, bias):
    n_experts, d_in, layers, n, top_k = shape
    rng = np.random.default_rng(7)
    weights = make_weights(rng, n_experts, d_in, layers, bias)
    x, share = draw(rng, n, d_in), draw(rng, n, top_k)
    ids = rng.integers(0, n_experts, (n, top_k))
    experts = Experts(n_experts, d_in, layers, precision="int8")
    y = experts(experts.pack(weights), x, experts=ids, share=share)
    # A hidden value that lies between two whole numbers may go the other way in float32: one step
    # of 1/127 in one of the columns.
    assert distance(y, quantised(layers, weights, x, ids, share)) < 2e-3
    exact = grouped(layers, weights, x, ids, share, np.zeros((n, layers[-1][0])))[0]
    assert 1e-3 < distance(y, exact) < 0.04


def test_one_layer_of_int8_is_its_twin_to_float32s_rounding(unit):
    rng = np.random.default_rng(3)
    layers = [(75, "identity", False)]
    weights = make_weights(rng, 2, 301, layers)
    x = draw(rng, 19, 301)
    ids, one = rng.integers(0, 2, (19, 1)), np.ones((19, 1))
    layer = GroupedLinear(2, 301, 75, precision="int8")
    y = layer(layer.pack(weights), x, experts=ids)
    assert distance(y, quantised(layers, weights, x, ids, one)) < 1e-6


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 500])
def test_a_rows_bits_in_int8_depend_on_nothing_but_the_row(unit, n):
    rng = np.random.default_rng(8)
    ffn = ExpertFeedForward(2, 37, 150, activation="silu", gated=True, precision="int8")
    pack = ffn.pack(make_weights(rng, 2, 37, ffn.layers))
    x, ids = draw(rng, n, 37), rng.integers(0, 2, (n, 2))
    y = ffn(pack, x, experts=ids, n_threads=1)
    assert_same_bits(ffn(pack, x, experts=ids, n_threads=3), y)
    rows = rng.permutation(n)[: (n + 1) // 2]
    assert_same_bits(ffn(pack, x[rows], experts=ids[rows], n_threads=2), y[rows])


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_row(unit, spoilt):
    rng = np.random.default_rng(9)
    layer = GroupedLinear(1, 140, 33, precision="int8")
    pack = layer.pack(make_weights(rng, 1, 140, layer.layers))
    x = draw(rng, 9, 140)
    clean = layer(pack, x, offsets=[0, 9])
    x[5, 137] = spoilt
    broken = layer(pack, x, offsets=[0, 9])
    assert np.isnan(broken[5]).all()
    assert_same_bits(np.delete(broken, 5, 0), np.delete(clean, 5, 0))


def test_zeros_and_numbers_near_nothing_are_zero(unit):
    layer = GroupedLinear(1, 4, 3, precision="int8")
    pack = layer.pack([ExpertWeights(np.zeros((1, 3, 4)), np.ones((1, 3)))])
    assert (layer(pack, np.ones((2, 4)), offsets=[0, 2]) == 1).all()
    pack = layer.pack([ExpertWeights(np.ones((1, 3, 4)), np.ones((1, 3)))])
    assert (layer(pack, np.full((2, 4), 1e-42), offsets=[0, 2]) == 1).all()
    pack = layer.pack([ExpertWeights(np.full((1, 3, 4), 1e-40), np.ones((1, 3)))])
    assert (layer(pack, np.ones((2, 4)), offsets=[0, 2]) == 1).all()


def test_units_agree_to_the_last_bit():
    if len(_native.byte_isas()) < 2:
        pytest.skip("this machine has no AVX-512-VNNI")
    rng = np.random.default_rng(5)
    ffn = ExpertFeedForward(1, 300, 400, activation="relu", precision="int8")
    weights, x = make_weights(rng, 1, 300, ffn.layers), draw(rng, 40, 300)
    before, results = _native.byte_isa(), []
    for name in _native.byte_isas():
        _native.set_byte_isa(name)
        ffn = ExpertFeedForward(1, 300, 400, activation="relu", precision="int8")
        results.append(ffn(ffn.pack(weights), x, offsets=[0, 40]))
    _native.set_byte_isa(before)
    assert_same_bits(results[0], results[1])


def test_int8_does_not_learn():
    layer = GroupedLinear(1, 4, 3, precision="int8")
    with pytest.raises(SpecError, match="expected a precision that learns, got 'int8'"):
        layer.forward([ExpertWeights(np.ones((1, 3, 4)))], np.ones((2, 4)), offsets=[0, 2])
    with pytest.raises(SpecError, match="float32 beside precision='int8'"):
        GroupedLinear(1, 4, 3, dtype="float64", precision="int8")
