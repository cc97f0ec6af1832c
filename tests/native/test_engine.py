"""The engine's passes against PyTorch's autograd and finite differences, on every ISA."""

import itertools

import numpy as np
import pytest
from tests.core.test_reference import (
    GRAPHS,
    PAIRS,
    differences,
    make_data,
    make_spec,
    make_theta,
    torch_gradients,
)
from tests.tolerances import assert_close, assert_same_bits, assert_small, rounding

from lamina import _native
from lamina.core.engine import Engine
from lamina.core.functions import ACTIVATIONS
from lamina.core.losses import CrossEntropy, SquaredError
from lamina.core.spec import NetworkSpec

ISAS = _native.isas()
DTYPES = ["float32", "float64"]
# Relative to the largest gradient: 1e-5 against PyTorch in float32, 1e-6 against differences.
TORCH_TOLERANCE = {"float32": 1e-5, "float64": rounding(np.float64, 64)}
SIZES = [0, 1, 7, 8, 9, 15, 16, 17, 63, 65]


@pytest.fixture(params=ISAS)
def isa(request):
    before = _native.isa()
    _native.set_isa(request.param)
    yield request.param
    _native.set_isa(before)


def gradients(spec, theta, data, loss, n_threads=2):
    engine = Engine(spec)
    engine.set_parameters(theta.astype(spec.dtype))
    x = np.ascontiguousarray(data.x, spec.dtype)
    grad, grad_x = np.empty(spec.n_params, spec.dtype), np.empty_like(x)
    value = engine.evaluate(
        x,
        data.y,
        loss,
        sample_weight=data.sample_weight,
        output_weight=data.output_weight,
        grad=grad,
        grad_x=grad_x,
        n_threads=n_threads,
    )
    return value, grad, grad_x


def exact_in_float32(a):
    return a.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_match_pytorch_on_every_isa(activation, graph):
    before = _native.isa()
    for loss, output in PAIRS:
        spec = make_spec(activation, output, graph)
        theta, data = exact_in_float32(make_theta(spec)), make_data(loss)
        data.x[:] = exact_in_float32(data.x)
        expected, grad, grad_x = torch_gradients(spec, theta, data, loss)
        for isa, dtype in itertools.product(ISAS, DTYPES):
            _native.set_isa(isa)
            cast = make_spec(activation, output, graph, dtype=dtype)
            value, ours, ours_x = gradients(cast, theta, data, loss)
            what, tolerance = f"{loss.name} of {output}, {isa}, {dtype}", TORCH_TOLERANCE[dtype]
            assert_close(value, expected, tolerance, what)
            scale = max(np.abs(grad).max(), abs(expected))
            assert_small(ours - grad, scale, tolerance, what)
            assert_small(ours_x - grad_x, scale, tolerance, what)
            if output != "step":
                assert np.any(ours != 0), what
    _native.set_isa(before)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "step"])
def test_gradients_match_finite_differences_of_the_engines_own_loss(isa, activation, graph):
    for loss, output in PAIRS:
        spec = make_spec(activation, output, graph)
        theta, data = make_theta(spec), make_data(loss)
        value, grad, _ = gradients(spec, theta, data, loss)
        engine = Engine(spec)

        def at(point, loss=loss, data=data, engine=engine):
            engine.set_parameters(point)
            weights = {"sample_weight": data.sample_weight, "output_weight": data.output_weight}
            return engine.evaluate(data.x, data.y, loss, **weights)

        directions = np.random.default_rng(2).normal(size=(3, spec.n_params))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        step = 1e-6
        numeric = np.array([at(theta + step * d) - at(theta - step * d) for d in directions])
        scale = max(float(np.linalg.norm(grad)), abs(value))
        error = directions @ grad - numeric / (2 * step)
        assert_small(error, scale, 1e-6, f"{loss.name} of {output} on {isa}")


SHAPES = [  # (d_in, widths, d_out, rows): panels that end early, thin heads, hundreds of classes
    (17, (33, 33, 40), 2, 37),
    (40, (9, 9, 70), 34, 150),
    (100, (65,), 1, 700),
    (3, (31, 31, 32), 3, 64),
    (5, (), 4, 129),
    (2, (2, 2, 3), 1, 33),
    (64, (128, 128), 300, 20),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "graph", [{}, {"residual": True}, {"skips": {2: (0,)}, "residual": True}], ids=str
)
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_any_shape_matches_pytorch(isa, shape, graph, activation):
    from lamina.core.reference import Data, evaluate

    d_in, widths, d_out, n = shape
    if "skips" in graph and not widths:
        return
    rng = np.random.default_rng(3)
    x, y = exact_in_float32(rng.normal(size=(n, d_in))), rng.integers(0, d_out, n)
    for dtype, loss in itertools.product(DTYPES, [CrossEntropy(), SquaredError()]):
        output = "softmax" if loss.name == "cross_entropy" else "identity"
        spec = NetworkSpec.create(
            d_in, widths, d_out, activation=activation, output=output, dtype=dtype, **graph
        )
        theta = exact_in_float32(rng.normal(0, 1 / np.sqrt(d_in + 8), spec.n_params))
        data = Data(x, y.astype(np.int32) if output == "softmax" else rng.normal(size=(n, d_out)))
        value, grad, grad_x = evaluate(spec, theta, data, loss)  # itself held to PyTorch's
        ours = gradients(spec, theta, data, loss)
        tolerance = 1e-5 if dtype == "float32" else rounding(np.float64, 256)
        assert_close(ours[0], value, tolerance)
        assert_close(ours[1], grad, tolerance)
        assert_close(ours[2], grad_x, tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("output", ["identity", "softmax", "sigmoid"])
@pytest.mark.parametrize("widths", [(), (1,), (3, 33), (100,), (130, 17)])
@pytest.mark.parametrize("d_out", [1, 2, 3, 4, 5, 33])
def test_a_rows_bits_do_not_depend_on_its_batch(isa, dtype, output, widths, d_out):
    spec = NetworkSpec.create(21, widths, d_out, activation="tanh", output=output, dtype=dtype)
    rng = np.random.default_rng(0)
    engine = Engine(spec)
    engine.set_parameters(rng.normal(0, 0.3, spec.n_params).astype(dtype))
    x = rng.normal(size=(1300, 21)).astype(dtype)
    whole = engine.forward(x, n_threads=2)
    for start, n, n_threads in [
        (0, 1, 1),
        (5, 1, 2),
        (1299, 1, 1),
        (3, 17, 1),
        (600, 65, 2),
        (1, 700, 3),
    ]:
        part = engine.forward(x[start : start + n], n_threads)
        assert_same_bits(part, whole[start : start + n], f"rows {start}…{start + n}")


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_batch_size_and_unaligned_views(isa, n, dtype):
    spec = NetworkSpec.create(9, (15, 17), 3, activation="silu", dtype=dtype)
    rng = np.random.default_rng(0)
    theta = rng.normal(0, 0.3, spec.n_params).astype(dtype)
    engine = Engine(spec)
    engine.set_parameters(theta)
    buffer = rng.normal(size=9 * n + 1).astype(dtype)
    x = buffer[1:].reshape(n, 9)  # not on a vector's boundary
    out = engine.forward(x)
    from lamina.core import reference

    assert out.shape == (n, 3)
    if n:
        expected = reference.forward(spec, theta.astype(float), x.astype(float)).h[-1]
        assert_close(out, expected, rounding(dtype, 64))
    z, h = engine.trace(x)
    assert [a.shape for a in z] == [a.shape for a in h] == [(n, 15), (n, 17), (n, 3)]
    assert_same_bits(h[-1], out)


def test_the_differences_helper_sees_a_wrong_gradient():
    spec, loss = make_spec("tanh", "identity", "plain"), SquaredError()
    theta, data = make_theta(spec), make_data(loss)
    _, grad, _ = gradients(spec, theta, data, loss)
    direction = np.eye(spec.n_params)[:1]
    numeric = differences(spec, theta, data, loss, direction)
    with pytest.raises(AssertionError):
        assert_small(-direction @ grad - numeric, float(np.linalg.norm(grad)), 1e-6)


def engine_class():
    return _native.Engine32(
        4, [(3, "relu", [0], False, 0.0), (2, "identity", [1], False, 0.0)], "softmax"
    )


BAD_LAYERS = {
    "at least one layer": [],
    "width must be at least 1": [(0, "identity", [0], False, 0.0)],
    "first source": [(3, "relu", [0], False, 0.0), (2, "identity", [0], False, 0.0)],
    "distinct earlier layers": [(3, "identity", [0, 0], False, 0.0)],
    "equal widths": [(3, "relu", [0], True, 0.0), (2, "identity", [1], False, 0.0)],
    "dropout": [(3, "relu", [0], False, 1.0), (2, "identity", [1], False, 0.0)],
    "unknown activation": [(3, "rleu", [0], False, 0.0), (2, "identity", [1], False, 0.0)],
    "last layer is plain": [(3, "relu", [0], False, 0.0)],
}


@pytest.mark.parametrize("message", BAD_LAYERS)
def test_bindings_refuse_a_wrong_specification(message):
    with pytest.raises(ValueError, match=message):
        _native.Engine32(4, BAD_LAYERS[message], "identity")


def test_bindings_refuse_wrong_arrays_and_convert_nothing():
    engine = engine_class()
    x = np.zeros((5, 4), np.float32)
    out = np.zeros((5, 2), np.float32)
    classes = np.zeros(5, np.int32)
    none = (None, None, None, None, 1)
    with pytest.raises(TypeError):
        engine.forward(x.astype(np.float64), out, 1)
    with pytest.raises(TypeError):
        engine.forward(np.asfortranarray(np.zeros((5, 4), np.float32)), out, 1)
    with pytest.raises(ValueError, match="columns"):
        engine.forward(x[:, :3].copy(), out, 1)
    with pytest.raises(ValueError, match="out has"):
        engine.forward(x, out[:4], 1)
    with pytest.raises(ValueError, match="n_threads"):
        engine.forward(x, out, 0)
    with pytest.raises(ValueError, match="theta"):
        engine.set_parameters(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="out of range"):
        engine.evaluate(x, classes + 2, "cross_entropy", [0.0], *none)
    with pytest.raises(ValueError, match="out of range"):
        engine.evaluate(x, classes - 1, "cross_entropy", [0.0], *none)
    with pytest.raises(ValueError, match="wrong length"):
        engine.evaluate(x, classes[:4], "cross_entropy", [0.0], *none)
    with pytest.raises(ValueError, match="class ids need"):
        engine.evaluate(x, classes, "squared_error", [], *none)
    with pytest.raises(ValueError, match="needs the output sigmoid"):
        engine.evaluate(x, out, "binary_cross_entropy", [], *none)
    run = _native.Run32(engine, "cross_entropy", [0.0], "adam", {}, 2, 0, 1)
    order, lr, losses = np.full((1, 5), 5), np.zeros(3), np.zeros(1)
    with pytest.raises(ValueError, match="order names a row"):
        run.epochs(x, classes, None, None, order, True, 0, 1, lr, losses, 1.0)
