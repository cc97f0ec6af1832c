"""The blueprint: sizes and layout of theta, strict checks, and the way through JSON."""

import dataclasses
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.core.errors import SpecError
from lamina.core.functions import ACTIVATIONS, OUTPUTS
from lamina.core.spec import NetworkSpec

SENTENCE = re.compile(r"^Network: expected .*, got .*\. \S.*\.$", re.DOTALL)
create = NetworkSpec.create


def test_sizes_of_a_plain_network():
    spec = create(5, (7, 3), 2)
    assert spec.n_layers == 3
    assert spec.layer_dims == (5, 7, 3, 2)
    assert spec.parameter_shapes() == (((7, 5), (7,)), ((3, 7), (3,)), ((2, 3), (2,)))
    assert spec.n_params == 7 * 5 + 7 + 3 * 7 + 3 + 2 * 3 + 2
    assert spec.slices()[1] == (slice(42, 63), slice(63, 66))
    assert [spec.sources(layer) for layer in (1, 2, 3)] == [(0,), (1,), (2,)]
    assert [spec.activation_at(layer) for layer in (1, 2, 3)] == ["relu", "relu", "identity"]


def test_a_linear_model_has_one_layer():
    spec = create(5, (), 2)
    assert spec.n_layers == 1
    assert spec.n_params == 12
    assert spec.activation_at(1) == "identity"
    assert not spec.residual_at(1)


def test_skips_widen_the_fan_in_in_the_order_given():
    spec = create(5, (7, 3), 2, skips={3: (1, 0), 2: [0]})
    assert spec.skips == ((2, (0,)), (3, (1, 0)))
    assert spec.sources(3) == (2, 1, 0)
    assert [spec.fan_in(layer) for layer in (1, 2, 3)] == [5, 12, 15]
    assert spec.parameter_shapes()[2] == ((2, 15), (2,))


def test_residuals_join_hidden_layers_of_equal_width_only():
    spec = create(4, (4, 4, 3, 3), 3, residual=True)
    assert [spec.residual_at(layer) for layer in range(1, 6)] == [True, True, False, True, False]
    assert not create(4, (4,), 4).residual_at(1)


def test_what_users_type_is_made_canonical():
    spec = create(
        np.int64(3),
        np.array([4, 5]),
        2,
        activation=["tanh", "gelu"],
        skips={3: 0, 2: ()},
        residual=np.True_,
        dropout=0,
        dtype=np.float64,
    )
    assert spec == NetworkSpec(
        3, (4, 5), 2, ("tanh", "gelu"), "identity", ((3, (0,)),), True, 0.0, None, "float64"
    )
    assert json.loads(json.dumps(spec.to_json())) == spec.to_json()
    assert create(3, 8, 2).widths == (8,)
    assert create(3, [], 2, dtype="float32") == create(3, (), 2)
    assert hash(spec) == hash(dataclasses.replace(spec))


BAD = [
    ({"d_in": 0}, "d_in to be a whole number of at least 1, got 0"),
    ({"d_in": 2.5}, "d_in to be a whole number"),
    ({"d_out": True}, "d_out to be a whole number"),
    ({"widths": (4, 0)}, "each width"),
    ({"widths": "44"}, "widths to be an iterable"),
    ({"widths": None}, "widths to be an iterable"),
    ({"activation": "rellu"}, "activation to be one of identity, .*got 'rellu'"),
    ({"activation": "rellu", "widths": ()}, "activation to be one of"),
    ({"activation": ("relu",)}, "one activation for each of the 2 hidden layers, got 1"),
    ({"activation": (1, 2)}, "activation to be one of"),
    ({"activation": None}, "activation to be a name or one a hidden layer"),
    ({"output": "linear"}, "output to be one of identity, sigmoid, softmax, exp, step"),
    ({"output": None}, "output to be one of"),
    ({"skips": {3: (2,)}}, r"skips\[3\] from layers 0 to 1, got 2"),
    ({"skips": {3: (0, 0)}}, r"distinct layers as skips\[3\]"),
    ({"skips": {3: (-1,)}}, "each source in skips"),
    ({"skips": {1: (0,)}}, "skips into layers 2 to 3, got layer 1"),
    ({"skips": {4: (0,)}}, "skips into layers 2 to 3, got layer 4"),
    ({"skips": {"3": (0,)}}, "each layer in skips"),
    ({"skips": [(3, (0,))]}, "skips to be a mapping"),
    ({"skips": {3: None}}, r"skips\[3\] to be an iterable"),
    ({"skips": {3: ("0",)}}, "each source in skips"),
    ({"residual": 1}, "residual to be True or False, got 1"),
    ({"dropout": 1.0}, r"dropout to be a number in \[0, 1\), got 1.0"),
    ({"dropout": -0.1}, "dropout to be a number"),
    ({"dropout": "0"}, "dropout to be a number"),
    ({"encoding": "hash"}, "encoding to be None or a HashGrid.*, got 'hash'"),
    ({"dtype": "float16"}, "dtype to be one of float32, float64, got 'float16'"),
    ({"dtype": int}, "got 'int64'"),
    ({"dtype": "single-ish"}, "got 'single-ish'"),
]


@pytest.mark.parametrize(("change", "sentence"), BAD)
def test_wrong_architectures_get_one_clear_sentence(change, sentence):
    with pytest.raises(SpecError, match=sentence) as caught:
        create(**{"d_in": 3, "widths": (4, 4), "d_out": 2, **change})
    assert SENTENCE.match(str(caught.value)), caught.value


@st.composite
def specs(draw):
    widths = tuple(draw(st.lists(st.integers(1, 9), max_size=4)))
    skips = {
        layer: draw(st.lists(st.integers(0, layer - 2), unique=True))
        for layer in range(2, len(widths) + 2)
    }
    return create(
        draw(st.integers(1, 9)),
        widths,
        draw(st.integers(1, 9)),
        activation=[draw(st.sampled_from(list(ACTIVATIONS))) for _ in widths],
        output=draw(st.sampled_from(list(OUTPUTS))),
        skips=skips,
        residual=draw(st.booleans()),
        dropout=draw(st.floats(0.0, 0.99)),
        dtype=draw(st.sampled_from(["float32", "float64"])),
    )


@settings(max_examples=50, deadline=None)
@given(specs())
def test_json_brings_an_equal_specification_back(spec):
    again = NetworkSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert hash(again) == hash(spec)


@settings(max_examples=50, deadline=None)
@given(specs())
def test_slices_tile_theta_without_gaps(spec):
    stop = 0
    for pair, shapes in zip(spec.slices(), spec.parameter_shapes(), strict=True):
        for part, shape in zip(pair, shapes, strict=True):
            assert part.start == stop
            stop = part.stop
            assert part.stop - part.start == np.prod(shape)
    assert stop == spec.n_params


GOOD_JSON = create(3, (4, 4), 2, skips={3: (0, 1)}).to_json()


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {**GOOD_JSON, "colour": 1},
        {1: 2, "d_in": 3},
        {key: value for key, value in GOOD_JSON.items() if key != "skips"},
        *(
            {**GOOD_JSON, **change}
            for change in (
                {"d_in": "3"},
                {"d_in": 3.0},
                {"d_in": -3},
                {"d_in": None},
                {"widths": 4},
                {"widths": "44"},
                {"widths": {"4": 4}},
                {"widths": [4, "4"]},
                {"widths": [4, [4]]},
                {"widths": [4, 4, 4]},
                {"activations": ["relu", "exec"]},
                {"activations": ["relu", ["relu"]]},
                {"activations": "relu"},
                {"output": {}},
                {"output": ["identity"]},
                {"skips": {"3": [0]}},
                {"skips": [3]},
                {"skips": [[3, 0]]},
                {"skips": [[3, [0]], [3, [1]]]},
                {"skips": [["3", [0]]]},
                {"skips": [[3, ["0"]]]},
                {"skips": [[3, [[0]]]]},
                {"skips": [[3, []]]},
                {"skips": [[3, [0.0]]]},
                {"skips": [[True, [0]]]},
                {"skips": [[[3], [0]]]},
                {"residual": "yes"},
                {"residual": 1},
                {"dropout": "0"},
                {"dropout": 2},
                {"dropout": None},
                {"encoding": {}},
                {"dtype": "float16"},
                {"dtype": None},
                {"dtype": ["float32"]},
            )
        ),
    ],
)
def test_tampered_json_is_refused_in_one_clear_sentence(data):
    with pytest.raises(SpecError) as caught:
        NetworkSpec.from_json(data)
    assert SENTENCE.match(str(caught.value)), caught.value


def test_too_many_parameters_are_refused_before_anything_is_allocated():
    with pytest.raises(SpecError, match="at most 8,589,934,592 parameters"):
        NetworkSpec.create(10**9, (10**9,), 1)


def test_many_layers_cost_linear_time():
    spec = NetworkSpec.create(1, (1,) * 50_000, 1, skips={3: (0,)})
    assert spec.n_params == 2 * 50_001 + 1
