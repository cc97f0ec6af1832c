"""Column embeddings in the engine against the slow twin, on every ISA, in both dtypes."""

import numpy as np
import pytest
from tests.tolerances import assert_close, assert_same_bits, assert_small, rounding

from lamina import ColumnEmbeddings, _native
from lamina.core import encode, reference
from lamina.core.engine import Engine, Run
from lamina.core.losses import SquaredError
from lamina.core.reference import Data, Hyper, State, adam_step, sgd_step
from lamina.core.spec import NetworkSpec

CELLS = (10, -3, 1, -20, 40, -1, -3000)
FEATURES = [1, 2, 3, 4, 8, 12]
SIZES = [1, 7, 8, 9, 15, 16, 17, 63, 65, 150]


@pytest.fixture(params=_native.isas())
def isa(request):
    before = _native.isa()
    _native.set_isa(request.param)
    yield request.param
    _native.set_isa(before)


def make(n_features, dtype="float64", widths=(9,), **more):
    """A specification, parameters whose table is as large as its weights, and rows.

    Some rows lie beyond every end; none on a knot, where the derivative by x jumps, except the
    whole numbers of categories.
    """
    encoding = ColumnEmbeddings(CELLS, n_features)
    spec = NetworkSpec.create(
        len(CELLS), widths, 3, activation="tanh", encoding=encoding, dtype=dtype, **more
    )
    rng = np.random.default_rng(n_features)
    theta = rng.normal(0, 0.5, spec.n_params).astype(dtype)
    x = rng.uniform(-0.3, 1.3, (400, len(CELLS))).astype("float32").astype(float)
    for j, c in enumerate(CELLS):
        if c < 0:
            x[:, j] = rng.integers(-1, -c + 1, 400)
            x[::3, j] += 0.2  # to be rounded
    numbers = [j for j, c in enumerate(CELLS) if c > 0]
    at = x[:, numbers] * np.array(CELLS)[numbers]
    x = x[np.all(np.abs(at - np.round(at)) > 1e-4, axis=1)]
    return spec, theta, x[:200], rng.normal(size=(200, 3))


def tolerance(dtype):
    return rounding(dtype, 8 * max(CELLS))  # positions inside a cell lose a factor of the cells


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_features", FEATURES)
def test_values_and_gradients_match_the_twin(isa, n_features, dtype):
    spec, theta, x, y = make(n_features, dtype)
    engine = Engine(spec)
    engine.set_parameters(theta)
    z = reference.forward(spec, theta, x).z[-1]
    assert_close(engine.forward(x), z, tolerance(dtype), "forward")
    value, grad, grad_x = reference.evaluate(spec, theta, Data(x, y), SquaredError())
    ours, ours_x = np.empty(spec.n_params, dtype), np.empty_like(x, dtype)
    got = engine.evaluate(x, y, SquaredError(), grad=ours, grad_x=ours_x, n_threads=2)
    assert_close(got, value, tolerance(dtype), "loss")
    assert_close(ours, grad, tolerance(dtype), "gradient")
    assert_close(ours_x, grad_x, tolerance(dtype), "gradient by x")
    table = spec.table_slice
    assert_close(ours[table], grad[table], tolerance(dtype), "gradient of the table")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_features", FEATURES)
def test_tangents_and_their_way_back_match_the_twin(isa, n_features, dtype):
    spec, theta, x, _ = make(n_features, dtype)
    engine = Engine(spec)
    engine.set_parameters(theta)
    table = reference.unpack_table(spec, theta)
    g = np.random.default_rng(0).normal(size=(len(x), spec.layer_dims[0])).astype(dtype)
    within = tolerance(dtype)
    assert_close(engine.encode(x), encode.encode(spec.encoding, table, x), within)
    grad_table, _ = encode.backward(spec.encoding, table, x, g)
    assert_close(engine.encode_backward(x, g), grad_table, within)
    other = np.random.default_rng(1).normal(size=table.shape)  # <g, T other> = <T^t g, other>
    for j, c in enumerate(CELLS):
        tangent = encode.tangent(spec.encoding, table, x, j)
        if c < 0:
            assert np.all(engine.encode(x, j) == 0)
            assert np.all(engine.encode_backward(x, g, j) == 0)
            continue
        assert_close(engine.encode(x, j), tangent, within)
        parts = g * encode.tangent(spec.encoding, other, x, j)
        ours = (engine.encode_backward(x, g, j) * other).sum()
        assert_small(ours - parts.sum(), np.abs(parts).sum(), within, f"the way back, column {j}")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_whole_numbers_take_exactly_the_vector_of_their_category(isa, dtype):
    encoding = ColumnEmbeddings((-(2**20), -7), 4)
    spec = NetworkSpec.create(2, (), 1, encoding=encoding, dtype=dtype)
    rng = np.random.default_rng(0)
    theta = rng.normal(size=spec.n_params).astype(dtype)
    engine = Engine(spec)
    engine.set_parameters(theta)
    table = reference.unpack_table(spec, theta).astype(dtype)
    x = np.stack([rng.integers(0, 2**20, 5000), rng.integers(0, 7, 5000)], axis=1)
    x[:4, 0] = 0, 1, 2**20 - 2, 2**20 - 1
    found = engine.encode(x.astype(dtype))
    for j in range(2):
        own = encoding.embedding(table, j)[x[:, j]]
        assert np.array_equal(found[:, 4 * j : 4 * j + 4], own)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_features", [3, 8])
def test_a_row_does_not_depend_on_its_batch_or_on_bad_rows(isa, n_features, dtype):
    spec, theta, x, _y = make(n_features, dtype)
    engine = Engine(spec)
    engine.set_parameters(theta)
    whole = engine.forward(x, n_threads=2)
    for n in SIZES:
        assert_same_bits(engine.forward(x[:n]), whole[:n], f"the first {n}")
        assert_same_bits(engine.forward(x[-n:]), whole[-n:], f"the last {n}")
    bad = x.copy()
    bad[3, 0], bad[4, 1], bad[5, 4] = np.nan, np.nan, np.inf
    out = engine.forward(bad)
    assert_same_bits(np.delete(out, [3, 4, 5], 0), np.delete(whole, [3, 4, 5], 0), "other rows")
    assert np.isnan(out[3:5]).all()
    assert np.isfinite(out[5]).all()  # the nearer end


def test_the_gradient_of_the_table_has_the_same_bits_for_any_number_of_threads(isa):
    spec, theta, x, y = make(8, "float32", widths=(64,))
    x, y = np.tile(x, (40, 1)), np.tile(y, (40, 1))
    engine = Engine(spec)
    engine.set_parameters(theta)
    found = []
    for n_threads in (1, 2, 3):
        grad = np.empty(spec.n_params, "float32")
        engine.evaluate(x, y, SquaredError(), grad=grad, n_threads=n_threads)
        found.append(grad[spec.table_slice])
    assert_same_bits(found[1], found[0], "two threads")
    assert_same_bits(found[2], found[0], "three threads")


HYPERS = {
    "adam": ("adam", {"epsilon": 1e-3, "weight_decay": 0.1, "l2": 0.01}),
    "sgd": ("sgd", {"weight_decay": 0.1}),
    "sgd momentum": ("sgd", {"momentum": 0.9, "l2": 0.01}),
}
SCHEDULES = {"row blocks": ((9,), 120), "split": ((70, 70), 8)}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("rule", HYPERS)
@pytest.mark.parametrize("n_threads", [1, 3])
def test_epochs_match_the_twin(isa, n_threads, rule, schedule):
    widths, batch = SCHEDULES[schedule]
    spec, theta, x, y = make(8, widths=widths)
    optimizer, hyper = HYPERS[rule]
    step = adam_step if optimizer == "adam" else sgd_step
    order = np.random.default_rng(0).permuted(np.tile(np.arange(200), (2, 1)), axis=1)
    lr = np.full((2, -(-200 // batch)), 0.01)
    state, losses = State.start(theta), []
    for epoch in range(2):
        batches = reference.split(order[epoch], batch)
        state, loss = reference.train_epoch(
            spec, state, Data(x, y), SquaredError(), step, Hyper(**hyper), batches, lr[epoch]
        )
        losses.append(loss)
    engine = Engine(spec)
    engine.set_parameters(theta)
    run = Run(
        engine, SquaredError(), optimizer, hyper, batch_size=batch, seed=0, n_threads=n_threads
    )
    ours, _ = run.epochs(x, y, lr.ravel(), first_epoch=0, n_epochs=2, order=order)
    within = rounding(np.float64, 10000)
    assert_close(ours, losses, within, "losses")
    assert_close(engine.get_parameters(), state.theta, within, "theta")
    if optimizer == "adam":  # a category without rows stays where it was
        table = spec.table_slice
        still = state.v[table] == 0
        assert 0 < np.count_nonzero(still) < still.size
        assert np.all(engine.get_parameters()[table][still] == theta[table][still])


@pytest.mark.parametrize(
    "encoding",
    [
        ("columns", [], []),
        ("columns", [4], []),
        ("columns", [5, 0, 16, 3, 0], []),
        ("columns", [0, 0, 16, 3, 0], []),
        ("columns", [4, 2, 16, 3, 0], []),  # a column that is not there
        ("columns", [4, -1, 16, 3, 0], []),
        ("columns", [4, 0, 16, 16, 0], []),  # fewer entries than knots
        ("columns", [4, 0, 16, 0, 17], []),
        ("columns", [4, 0, 17, 3, 0], []),
        ("columns", [4, 0, 0, 0, 1], []),
        ("columns", [4, 0, 16, 0, 0], []),
        ("columns", [4, 0, 16, 3, 3], []),
        ("columns", [4, 0, 16, -3, 0], []),
        ("columns", [4, 0, 2**40, 3, 0], []),
        ("columns", [4, 0, 2**30, 2**29, 0], []),
        ("columns", [4, 0, 16, 3, 0], [1.0]),
    ],
    ids=str,
)
def test_the_binding_refuses_what_would_read_beyond_an_array(encoding):
    with pytest.raises(ValueError, match=r"."):
        _native.Engine32(2, [(1, "identity", [0], False, 0.0)], "identity", encoding)
