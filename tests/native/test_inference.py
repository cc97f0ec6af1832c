"""The forward pass by every schedule: a row's bits are its own, and the reference agrees."""

import threading

import numpy as np
import pytest
from tests.tolerances import assert_close, assert_same_bits, rounding

from lamina import _native
from lamina.core import reference
from lamina.core.engine import Engine
from lamina.core.functions import ACTIVATIONS
from lamina.core.spec import NetworkSpec

ISAS = _native.isas()
DTYPES = ["float32", "float64"]
SIZES = [*range(1, 71)]


@pytest.fixture(params=ISAS)
def isa(request):
    before = _native.isa()
    _native.set_isa(request.param)
    yield request.param
    _native.set_isa(before)


def make(d_in, widths, d_out, dtype, **kwargs):
    spec = NetworkSpec.create(d_in, widths, d_out, dtype=dtype, **kwargs)
    rng = np.random.default_rng(0)
    theta = rng.normal(0, 0.5 / np.sqrt(d_in), spec.n_params).astype(dtype)
    engine = Engine(spec)
    engine.set_parameters(theta)
    return engine, theta


def rows(n, d_in, dtype):
    return np.random.default_rng(1).normal(size=(n, d_in)).astype(dtype)


def one_thread():
    return 1


def judge(engine, theta, n=90):
    """Hold a batch to the reference, and every batch size up to 70 to that batch, bit for bit."""
    spec = engine.spec
    x = rows(n, spec.d_in, spec.dtype)
    whole = engine.forward(x, 1)
    expected = reference.forward(spec, theta.astype(float), x.astype(float)).h[-1]
    assert_close(whole, expected, rounding(spec.dtype, 16 * max(spec.d_in, *spec.widths, 1)))
    out = np.full_like(whole, np.nan)
    for size in SIZES:
        start = (7 * size) % (n - size)
        here = slice(start, start + size)
        assert engine.predict(x[here], out[:size], one_thread) is not None
        assert_same_bits(out[:size], whole[here], f"{size} rows from {start}")
    return x, whole


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_and_batch_size(isa, dtype, activation):
    judge(*make(20, (33, 17), 3, dtype, activation=activation, output="softmax"))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 31, 33, 100, 200])
@pytest.mark.parametrize("d_out", [1, 2, 3, 4, 5, 33])
def test_awkward_widths_and_thin_heads(isa, dtype, width, d_out):
    judge(*make(width, (width, 9), d_out, dtype, output="sigmoid"))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("output", ["identity", "sigmoid", "softmax", "exp", "step"])
@pytest.mark.parametrize("d_out", [1, 2, 4, 7, 8, 9, 17])
def test_every_output_unit(isa, dtype, output, d_out):
    engine, theta = make(5, (9,), d_out, dtype, activation="tanh", output=output)
    _, y_pred = judge(engine, theta)
    if output == "softmax":
        assert_close(y_pred.sum(axis=1), np.ones(len(y_pred)), rounding(dtype, 32))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d_out", [2, 3, 5, 8, 9])
def test_extreme_scores_through_softmax(isa, dtype, d_out):
    engine, _ = make(3, (), d_out, dtype, output="softmax")
    extremes = [0, 1, -1, 90, -90, 1e4, -1e4, 1e20, -1e20, np.inf, -np.inf, np.nan]
    x = np.array([[a, b, 0] for a in extremes for b in extremes], dtype)
    with np.errstate(all="ignore"):
        whole = engine.forward(x, 1)
    alone = np.concatenate([engine.forward(x[i : i + 1], 1) for i in range(len(x))])
    np.testing.assert_array_equal(alone, whole)  # a NaN's sign aside
    finite = np.isfinite(x).all(axis=1) & (abs(x) < 1e5).all(axis=1)
    assert_close(whole[finite].sum(axis=1), np.ones(finite.sum()), rounding(dtype, 64))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("widths", [(40, 40, 40), (70, 70), ()])
def test_skips_and_residuals(isa, dtype, widths):
    skips = {len(widths) + 1: (0,)} if widths else None
    judge(*make(21, widths, 6, dtype, activation="silu", skips=skips, residual=True))


# Large enough that rows are shared out: one network whose last layer has panels for all threads,
# one whose last layer has a single panel, and one with a thin head.
LARGE = [(300, (520,), 300), (257, (301, 290), 10), (300, (500, 180), 2)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_sharing_a_layers_panels_changes_no_bits(isa, dtype, shape):
    engine, theta = make(*shape, dtype, activation="gelu", output="softmax", residual=True)
    x, whole = judge(engine, theta, n=300)
    for n_threads in (2, 3, 5):
        for n in (1, 2, 3, 5, 17, 64, 127, 128, 129, 300):
            y_pred = engine.forward(x[:n], n_threads)
            assert_same_bits(y_pred, whole[:n], f"{n} rows on {n_threads} threads")


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("n", [1, 5, 40])
def test_nan_and_infinity_stay_in_their_rows(isa, n, n_threads):
    engine, _ = make(300, (520,), 3, "float32", output="softmax")
    x = rows(n + 2, 300, "float32")
    clean = engine.forward(x, n_threads)
    x[n // 2, 7], x[n + 1, 3] = np.nan, np.inf
    y_pred = engine.forward(x, n_threads)
    assert np.isnan(y_pred[n // 2]).all()
    others = [i for i in range(n + 1) if i != n // 2]
    assert_same_bits(y_pred[others], clean[others])


def test_calls_from_many_threads_while_weights_change():
    """Every answer belongs to one set of weights or the other, never to a mixture."""
    engine, theta = make(64, (96, 96), 2, "float32", output="softmax")
    x = rows(40, 64, "float32")
    sizes = (1, 3, 40)
    thetas = (theta, (theta * 2).astype(np.float32))
    answers = []
    for each in thetas:
        engine.set_parameters(each)
        answers.append({n: engine.forward(x[:n], 1) for n in sizes})
    wrong, stop = [], threading.Event()

    def call():
        out = {n: np.empty((n, 2), np.float32) for n in sizes}
        while not stop.is_set():
            for n in sizes:
                engine.predict(x[:n], out[n], one_thread)
                if not any(np.array_equal(out[n], answer[n]) for answer in answers):
                    wrong.append(n)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    for i in range(300):
        engine.set_parameters(thetas[i % 2])
    stop.set()
    for caller in callers:
        caller.join()
    assert wrong == []
