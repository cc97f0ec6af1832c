"""Grouped products: what is refused, and with which sentence."""

import numpy as np
import pytest

from lamina.core.errors import DataError, ShapeError, SpecError
from lamina.core.grouped import ExpertFeedForward, ExpertWeights, GroupedLinear

E, D, F, N = 3, 4, 6, 5
X = np.ones((N, D), np.float32)
UP, DOWN = ExpertWeights(np.ones((E, F, D))), ExpertWeights(np.ones((E, D, F)))
IDS = np.zeros((N, 2), int)


@pytest.fixture
def ffn():
    return ExpertFeedForward(E, D, F)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({}, SpecError, "neither"),
        ({"offsets": [0, 1, 2, 5], "experts": IDS}, SpecError, "both"),
        ({"offsets": [0, 1, 5]}, ShapeError, "(4,)"),
        ({"offsets": [0, 1, 2, 4]}, DataError, "0 to the 5 rows"),
        ({"offsets": [0, 3, 2, 5]}, DataError, "falling"),
        ({"offsets": [0.0, 1.0, 2.0, 5.0]}, DataError, "integers"),
        ({"experts": IDS + 3}, DataError, "0 to 2"),
        ({"experts": IDS - 1}, DataError, "0 to 2"),
        ({"experts": IDS[:4]}, ShapeError, "(5, 2)"),
        ({"experts": IDS[:, 0]}, ShapeError, "(5, 1)"),
        ({"experts": IDS[:, :0]}, ShapeError, "(5, 1)"),
        ({"experts": IDS / 1.0}, DataError, "integers"),
        ({"experts": IDS, "share": np.ones((N, 1))}, ShapeError, "share of shape (5, 2)"),
        ({"experts": IDS, "out": np.ones((N, D))}, ShapeError, "float32"),
        ({"experts": IDS, "out": X[:, ::-1]}, ShapeError, "C-contiguous"),
        ({"experts": IDS, "out": X[:2]}, ShapeError, "(5, 4)"),
    ],
)
def test_a_wrong_route_is_one_sentence(ffn, arguments, error, says):
    with pytest.raises(error) as caught:
        ffn(ffn.pack([UP, DOWN]), X, **arguments)
    assert says in str(caught.value)
    with pytest.raises(error):
        ffn.forward([UP, DOWN], X, **arguments)


@pytest.mark.parametrize("x", [np.ones(D), np.ones((N, D + 1)), np.ones((N, D), "U1"), [[1], [2]]])
def test_a_wrong_x_is_refused(ffn, x):
    with pytest.raises((ShapeError, DataError), match="expected x"):
        ffn(ffn.pack([UP, DOWN]), x, offsets=[0, 1, 2, 5])


@pytest.mark.parametrize(
    ("weights", "error"),
    [
        ([UP], SpecError),
        ([DOWN, UP], ShapeError),
        ([UP, ExpertWeights(None)], ShapeError),
        ([UP._replace(gate=UP.weight), DOWN], SpecError),
        ([UP._replace(bias=np.ones(F)), DOWN], ShapeError),
        ([UP._replace(weight=UP.weight * 1j), DOWN], DataError),
    ],
)
def test_wrong_weights_are_refused(ffn, weights, error):
    with pytest.raises(error, match="expected"):
        ffn.pack(weights)


def test_a_gated_layer_needs_its_gate():
    with pytest.raises(SpecError, match="a gate"):
        ExpertFeedForward(E, D, F, gated=True).pack([UP, DOWN])


@pytest.mark.parametrize(
    "wrong",
    [{"n_experts": 0}, {"d_out": 1.5}, {"activation": "swish"}, {"dtype": "float16"}],
)
def test_a_wrong_shape_of_experts_is_refused(wrong):
    right = {"n_experts": E, "d_in": D, "d_out": F}
    with pytest.raises(SpecError, match="GroupedLinear: expected"):
        GroupedLinear(**{**right, **wrong})


def test_a_wrong_precision_is_refused(monkeypatch):
    with pytest.raises(SpecError, match="bfloat16"):
        GroupedLinear(E, D, F, precision="float16")
    with pytest.raises(SpecError, match="dtype float32"):
        GroupedLinear(E, D, F, precision="bfloat16", dtype="float64")
    monkeypatch.setattr("lamina.core.engine.bfloat16_unit", lambda: None)
    with pytest.raises(SpecError, match="AMX-BF16 or AVX-512-BF16"):
        GroupedLinear(E, D, F, precision="bfloat16")


def test_backward_refuses_what_does_not_fit(ffn):
    y, passed = ffn.forward([UP, DOWN], X, experts=IDS)
    with pytest.raises(ShapeError, match="grad_y"):
        ffn.backward(passed, y[:3])
    read_only = UP.weight.astype(np.float32)
    read_only.flags.writeable = False
    with pytest.raises(ShapeError, match="read-only"):
        ffn.backward(passed, y, weights=[ExpertWeights(read_only), DOWN])


def test_arrays_of_any_layout_and_dtype_give_the_same(ffn):
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 9, (N, D))
    expected = ffn(ffn.pack([UP, DOWN]), x.astype(np.float32), experts=IDS)
    for other in (np.asfortranarray(x, float), x.astype(np.int8), np.repeat(x, 2, 0)[::2]):
        got = ffn(ffn.pack([UP, DOWN]), other, experts=np.asfortranarray(IDS.astype(np.uint8)))
        np.testing.assert_array_equal(got, expected)
