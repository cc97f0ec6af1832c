"""Certified bounds: what is sampled never exceeds them, and they are close to it."""

from fractions import Fraction

import numpy as np
import pytest

import lamina
from lamina import _native
from lamina.core.errors import DataError, SpecError
from lamina.theory import certify_error, parse_expression
from lamina.theory.enclose import taylor_model
from lamina.theory.evaluate import exactly, in_float64
from lamina.theory.line_bounds import LineBounds
from lamina.theory.network_bounds import _activated, network_model
from lamina.theory.taylor import Boxes, Taylor

ACTIVATIONS = ["identity", "step", "sigmoid", "tanh", "relu", "leaky_relu", "softplus", "gelu"]
ACTIVATIONS += ["gelu_tanh", "silu", "selu", "mish", "sine", "squared_relu"]
FORMULAS = [
    "sin(6*x1)*x2",
    "exp(-4*(x1**2 + x2**2))",
    "1/(1 + 25*x1**2) - x2**3",
    "sqrt(2 + x1) + log(3 + x2)",
    "tanh(3*x1) + sigmoid(x2) * relu(x1 - x2)",
    "max(x1, x2**2) - min(x1, 0.2) + abs(x2) + sign(x1 + 0.1)",
    "tan(x1) + cos(x2)**2 + e**2 / pi",
]


def random_boxes(n, d, reach, rng, ends=1.0):
    low = rng.uniform(-ends, ends, (n, d))
    high = np.minimum(low + reach * rng.uniform(0, 1, (n, d)) ** 3, ends)
    return Boxes.between(low, high)


def points_of(boxes, rng):
    share = rng.choice([0.0, 1.0, rng.uniform(), rng.uniform()], boxes.low.shape)
    return np.clip(boxes.low + share * (boxes.high - boxes.low), boxes.low, boxes.high)


def assert_holds(model, boxes, x, value, slack):
    """The value at x lies in the model's range, and in the quadratic with its remainder."""
    assert (model.range.lo[:, 0] <= value + slack).all()
    assert (value <= model.range.hi[:, 0] + slack).all()
    t = x - boxes.centre
    centre = model.constant[:, 0] + sum(model.linear[k, :, 0] * t[:, k] for k in range(boxes.d))
    for i, (k, j) in enumerate(boxes.pairs):
        centre = centre + model.quadratic[i, :, 0] * t[:, k] * t[:, j]
    assert (np.abs(value - centre) <= model.error[:, 0] + slack).all()


@pytest.mark.parametrize("text", FORMULAS)
def test_taylor_models_hold_the_function(text):
    rng = np.random.default_rng(0)
    boxes = random_boxes(2000, 2, 0.5, rng)
    model, defined = taylor_model(parse_expression(text), boxes)
    assert defined.all()
    x = points_of(boxes, rng)
    value = in_float64(parse_expression(text), x)
    assert_holds(model, boxes, x, value, 1e-13 * (1 + np.abs(value)))


def test_remainders_shrink_with_the_third_power_of_the_box():
    errors = []
    for reach in (0.1, 0.05):
        boxes = Boxes.between(np.array([[0.3, 0.2]]), np.array([[0.3, 0.2]]) + reach)
        errors.append(taylor_model(parse_expression(FORMULAS[1]), boxes)[0].error[0, 0])
    assert 6 < errors[0] / errors[1] < 10


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_network_models_hold_what_the_engine_computes(activation, dtype):
    rng = np.random.default_rng(1)
    net = lamina.Network(
        2, (9, 7, 7), 1, activation=activation, skips={2: (0,), 4: (1,)}, residual=True,
        output="identity", dtype=dtype, rng=3,
    )  # fmt: skip
    for layer in range(4):
        net.biases[layer] = rng.normal(0, 0.3, net.biases[layer].shape)
    boxes = random_boxes(600, 2, 0.3, rng)
    points = random_boxes(600, 2, 0.0, rng)  # boxes of one point: only rounding is left
    for batch in (boxes, points):
        if dtype == "float32":
            batch = Boxes.between(*(e.astype("f4").astype("f8") for e in (batch.low, batch.high)))
        x = points_of(batch, rng).astype(dtype).astype(np.float64)
        x = np.clip(x, batch.low, batch.high)
        assert_holds(network_model(net, batch), batch, x, net(x)[:, 0].astype(np.float64), 0.0)


@pytest.mark.parametrize("output", ["sigmoid", "exp", "step"])
def test_output_units_are_enclosed(output):
    rng = np.random.default_rng(2)
    net = lamina.Network(2, (8,), 1, activation="tanh", output=output, rng=0)
    boxes = random_boxes(500, 2, 0.4, rng)
    x = np.clip(points_of(boxes, rng).astype("f4"), boxes.low, boxes.high).astype("f4")
    inside = ((x >= boxes.low) & (x <= boxes.high)).all(axis=1)
    model, value = network_model(net, boxes), net(x)[:, 0]
    assert (model.range.lo[:, 0] <= value)[inside].all()
    assert (value <= model.range.hi[:, 0])[inside].all()


@pytest.mark.parametrize("f", ["abs(x)", "sin(6*x)", "exp(x)", "sqrt(x + 1)"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "step", "gelu"])
def test_bound_of_an_untrained_network_is_above_dense_samples_and_close(f, activation):
    net = lamina.Network(1, (12, 12), 1, activation=activation, dtype="float64", rng=1)
    net.biases[0] = np.linspace(-0.9, 0.9, 12)
    found = certify_error(net, f, (-1, 1))
    x = np.linspace(-1, 1, 50_001)[:, np.newaxis]
    dense = np.abs(net(x)[:, 0] - in_float64(parse_expression(f), x)).max()
    assert found.lower <= dense * (1 + 1e-12) + 1e-12
    assert dense <= found.upper <= 1.2 * dense
    assert found.lower == pytest.approx(
        abs(net(found.at[np.newaxis])[0, 0] - in_float64(parse_expression(f), found.at[None])[0])
    )


def test_exact_representation_is_certified_to_rounding():
    net = lamina.Network(1, (2,), 1, dtype="float64", rng=0)
    net.weights[0], net.biases[0] = [[1.0], [-1.0]], [0.0, 0.0]
    net.weights[1], net.biases[1] = [[1.0, 1.0]], [0.0]
    found = certify_error(net, "abs(x)", (-1, 1))
    assert found.lower == 0
    assert 0 < found.upper < 1e-13
    single = lamina.Network(1, (2,), 1, rng=0)
    single.theta = net.theta
    assert 1e-9 < certify_error(single, "abs(x)", (-1, 1)).upper < 1e-5


def test_rounding_of_float32_is_part_of_the_bound():
    # A sum that cancels: 1e6 x - 1e6 x + x is x in exact arithmetic, and off by 0.03 in float32.
    net = lamina.Network(1, (3,), 1, activation="identity", rng=0)
    net.weights[0], net.biases[0] = [[1e6], [1e6], [1.0]], [0.1, 0.1, 0.0]
    net.weights[1], net.biases[1] = [[1.0, -1.0, 1.0]], [0.0]
    x = np.random.default_rng(0).uniform(0, 1, (20_000, 1)).astype("f4")
    off = np.abs(net(x).astype("f8") - x).max()
    assert certify_error(net, "x", (0, 1)).upper >= off


def test_decimals_are_taken_as_written():
    net = lamina.Network(1, (), 1, dtype="float64", rng=0)
    net.weights[0], net.biases[0] = [[0.1]], [0.0]
    found = certify_error(net, "0.1*x", (1, 2))
    truth = abs(Fraction(0.1) - Fraction(1, 10)) * 2
    assert found.upper >= float(truth) > 0


@pytest.mark.parametrize(
    ("f", "at"),
    [("1/x", "0"), ("log(x)", "-"), ("sqrt(x)", "-"), ("1/(x - 0.3)", r"0\.3"), ("x/x", "0")],
)
def test_what_is_undefined_in_the_box_is_said_with_the_place(f, at):
    net = lamina.Network(1, (4,), 1, rng=0)
    with pytest.raises(DataError, match=rf"to be defined.*at or near \({at}"):
        certify_error(net, f, (-1, 1))


def test_poles_and_curves_of_poles_are_found():
    with pytest.raises(DataError, match=r"near \(1\.5708\)"):
        certify_error(lamina.Network(1, (4,), 1, rng=0), "tan(x)", (0, 2))
    with pytest.raises(DataError, match="to be defined"):
        certify_error(lamina.Network(2, (4,), 1, rng=0), "1/(x1 - x2/3)", [(-1, 1), (-1, 1)])
    net = lamina.Network(1, (), 1, rng=0)
    assert certify_error(net, "sqrt(1 - x**2)", (-1, 1)).upper < 4  # defined up to both ends


@pytest.mark.alone
def test_max_seconds_and_target_end_the_search_with_bounds_that_hold():
    net = lamina.Network(3, (64, 64), 1, dtype="float64", rng=0)
    box = [(-1, 1)] * 3
    x = np.random.default_rng(0).uniform(-1, 1, (20_000, 3))
    dense = np.abs(net(x)[:, 0] - np.sin(x.sum(axis=1))).max()
    short = certify_error(net, "sin(x1+x2+x3)", box, max_seconds=0.05, rtol=0.0)
    assert short.stopped == "time"
    assert dense <= short.upper
    assert short.seconds < 1.0
    found = certify_error(net, "sin(x1+x2+x3)", box, target=0.01)
    assert found.stopped == "above"
    assert found.lower > 0.01


def test_bad_calls_are_one_sentence():
    net = lamina.Network(1, (4,), 1, rng=0)
    for call, sentence in (
        (lambda: certify_error(net, "x", (1, 1)), r"low < high.*got \(1\.0, 1\.0\)"),
        (lambda: certify_error(net, "x", (0, np.inf)), "low < high"),
        (lambda: certify_error(net, "x", (0, np.nan)), "low < high"),
        (lambda: certify_error(net, "x", "0:1"), r"expected box as \(low, high\)"),
        (lambda: certify_error(net, "x", None), r"expected box as \(low, high\)"),
        (lambda: certify_error(net, "x", [(0, 1), (0, 1)]), "got a box of 2"),
        (lambda: certify_error(net, "x2", (0, 1)), "a function of 2"),
        (lambda: certify_error(net, "x", (0, 1), rtol=-1), "rtol"),
        (lambda: certify_error(net, "x", (0, 1), max_seconds=0), "max_seconds"),
        (lambda: certify_error(np.sin, "x", (0, 1)), r"expected a lamina\.Network, got ufunc"),
        (lambda: certify_error(lamina.Network(1, (4,), 2), "x", (0, 1)), "one output"),
        (
            lambda: certify_error(
                lamina.Network(1, (4,), 1, encoding=lamina.Fourier(2)), "x", (0, 1)
            ),
            "without encoding",
        ),
    ):
        with pytest.raises(SpecError, match=sentence) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("activation", ["relu", "step"])
def test_sums_by_place_hold_what_the_engine_computes(activation, dtype):
    rng = np.random.default_rng(5)
    net = lamina.Network(1, (40,), 1, activation=activation, dtype=dtype, rng=0)
    weight = rng.normal(0, 2, (40, 1)) * (rng.uniform(size=(40, 1)) > 0.1)  # some never move
    knots = rng.choice(np.linspace(-1, 1, 17), 40)  # some share a knot
    net.weights[0], net.biases[0] = weight, -weight[:, 0] * knots
    net.weights[1], net.biases[1] = rng.normal(0, 1, (1, 40)), [0.3]
    single = dtype == "float32"
    for reach in (0.4, 1e-3, 0.0):
        low = np.concatenate([rng.uniform(-1, 1, (400, 1)), knots[:, None], knots[:, None] - reach])
        boxes = Boxes.between(low, low + reach * rng.uniform(0, 1, low.shape))
        if single:
            ends = (e.astype("f4").astype("f8") for e in (boxes.low, boxes.high))
            boxes = Boxes.between(*ends)
        x = points_of(boxes, rng).astype(dtype).astype(np.float64)
        x = np.clip(x, boxes.low, boxes.high)
        model = LineBounds(net, 2.0).model(boxes)
        assert_holds(model, boxes, x, net(x)[:, 0].astype(np.float64), 0.0)
        general = network_model(net, boxes)
        close = 1e-11 if not single else 1e-3
        width = model.range.hi - model.range.lo
        assert (width <= (general.range.hi - general.range.lo) * (1 + 1e-9) + close).all()


def test_at_a_point_only_rounding_is_left_and_all_of_it():
    f = parse_expression("(x1 - x2/3)**3 * 7 - x1*x2 + 0.1 - 1/(x2 + 3)")
    rng = np.random.default_rng(6)
    x = rng.normal(0, 1, (300, 2))
    model, _ = taylor_model(f, Boxes.between(x, x))
    for i, row in enumerate(x.tolist()):
        exact = exactly(f, [Fraction(v) for v in row])
        c, e = Fraction(float(model.constant[i, 0])), Fraction(float(model.error[i, 0]))
        assert abs(exact - c) <= e
        assert Fraction(float(model.range.lo[i, 0])) <= exact
        assert exact <= Fraction(float(model.range.hi[i, 0]))
        assert e < 1e-10 * (1 + abs(exact))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_rounding_of_activations_is_enclosed(activation, dtype):
    net = lamina.Network(1, (1,), 1, activation=activation, dtype=dtype, rng=0)
    net.theta = [1.0, 0.0, 1.0, 0.0]  # net(x) is phi(x) as computed, and nothing else
    x = np.random.default_rng(7).normal(0, 4, (2000, 1)).astype(dtype)
    points = x.astype(np.float64)
    model = _activated(Taylor.inputs(Boxes.between(points, points)), activation, dtype)
    value = net(x)[:, 0].astype(np.float64)
    assert (model.range.lo[:, 0] <= value).all()
    assert (value <= model.range.hi[:, 0]).all()
    width = (model.range.hi - model.range.lo)[:, 0]
    if activation != "step":
        assert (width <= 400 * np.finfo(dtype).eps * (1 + np.abs(value))).all()


@pytest.mark.parametrize("isa", _native.isas())
def test_the_sign_of_a_unit_next_to_its_knot_is_left_open(isa):
    before = _native.isa()
    _native.set_isa(isa)
    try:
        rng = np.random.default_rng(8)
        net = lamina.Network(1, (200,), 1, activation="step", rng=0)
        weight = rng.uniform(0.5, 5, (200, 1)).astype("f4")
        net.weights[0], net.biases[0] = weight, rng.normal(0, 1, 200)
        net.weights[1], net.biases[1] = rng.normal(0, 1, (1, 200)), [0.0]
        knots = (-net.biases[0] / weight[:, 0]).astype("f4")
        near = [knots, *(np.nextafter(knots, s * np.float32(9)) for s in (-1, 1))]
        x = np.concatenate(near)[:, np.newaxis]
        points = x.astype(np.float64)
        model = LineBounds(net, 20.0).model(Boxes.between(points, points))
        value = net(x)[:, 0].astype(np.float64)
        assert (model.range.lo[:, 0] <= value).all()
        assert (value <= model.range.hi[:, 0]).all()
    finally:
        _native.set_isa(before)


def test_a_gap_in_the_domain_that_no_sample_meets_is_found():
    net = lamina.Network(1, (4,), 1, rng=0)
    with pytest.raises(DataError, match=r"to be defined.*near \(0\.3\)"):
        certify_error(net, "sqrt(abs(x - 0.3) - 1e-7)", (0, 1))
