"""Encodings in the engine against the slow twin, on every ISA, in both dtypes."""

import itertools

import numpy as np
import pytest
from tests.tolerances import assert_close, assert_same_bits, assert_small, rounding

import lamina
from lamina import Fourier, HashGrid, OneBlob, RandomFourier, _native
from lamina.core import encode, reference
from lamina.core.engine import Engine, Run
from lamina.core.losses import SquaredError
from lamina.core.reference import Data, Hyper, State, adam_step, sgd_step
from lamina.core.spec import NetworkSpec

FINEST = 60
SIZES = [1, 7, 8, 9, 15, 16, 17, 63, 65, 200]


def grid(**more):
    return HashGrid(**{"n_levels": 5, "log2_table_size": 6, "finest_resolution": FINEST, **more})


GRIDS = {
    f"{kind} {interpolation} {n_features}": grid(
        kind=kind, interpolation=interpolation, n_features=n_features, base_resolution=3
    )
    for (kind, interpolation), n_features in zip(
        [*itertools.product(("hash", "tiled"), ("linear", "smoothstep")), ("hash", "linear")],
        (2, 3, 1, 4, 3),
        strict=True,
    )
}
GRIDS["dense linear 2"] = grid(kind="dense", finest_resolution=20, bounds=(-0.5, 2.0))
GRIDS["many levels"] = grid(n_levels=23, n_features=3, interpolation="smoothstep")
WAVES = {
    "fourier": Fourier(5),
    "fourier without x": Fourier(11, include_input=False),
    "random fourier": RandomFourier(21, scale=2.0, rng=0),
    "one blob": OneBlob(7, bounds=(-1.0, 1.5)),
}
ALL = GRIDS | WAVES


@pytest.fixture(params=_native.isas())
def isa(request):
    before = _native.isa()
    _native.set_isa(request.param)
    yield request.param
    _native.set_isa(before)


def make(encoding, d_in, dtype="float64", widths=(9,), **more):
    """A specification, parameters whose table is as large as its weights, and rows.

    Some rows lie outside the bounds; none on a cell's wall, where the derivative by x jumps.
    """
    spec = NetworkSpec.create(
        d_in, widths, 3, activation="tanh", encoding=encoding, dtype=dtype, **more
    )
    rng = np.random.default_rng(d_in)
    theta = rng.normal(0, 0.5, spec.n_params).astype(dtype)
    x = rng.uniform(-1.3, 1.3, (2000, d_in)).astype("float32").astype(float)
    if isinstance(encoding, HashGrid):
        low, high = encoding.bounds
        u = (x - low) / (high - low)
        walls = np.concatenate([u * n for n in encoding.resolutions()] + [u, u - 1], axis=1)
        x = x[np.all(np.abs(walls - np.round(walls)) > 1e-4, axis=1)]
    return spec, theta, x[:200], rng.normal(size=(200, 3))


def tolerance(dtype):
    return rounding(dtype, 8 * FINEST)  # positions inside a cell lose a factor of the resolution


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("d_in", [1, 2, 3])
def test_values_and_gradients_match_the_twin(isa, d_in, name, dtype):
    spec, theta, x, y = make(ALL[name], d_in, dtype)
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
    if isinstance(ALL[name], HashGrid):
        assert np.any(grad[table] != 0)
        assert_close(ours[table], grad[table], tolerance(dtype), "gradient of the table")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("d_in", [1, 2, 3])
def test_tangents_and_their_way_back_match_the_twin(isa, d_in, name, dtype):
    spec, theta, x, _ = make(ALL[name], d_in, dtype)
    engine = Engine(spec)
    engine.set_parameters(theta)
    table = reference.unpack_table(spec, theta)
    g = np.random.default_rng(0).normal(size=(len(x), spec.layer_dims[0])).astype(dtype)
    within = tolerance(dtype)
    assert_close(engine.encode(x), encode.encode(spec.encoding, table, x), within)
    for j in range(d_in):
        assert_close(engine.encode(x, j), encode.tangent(spec.encoding, table, x, j), within)
    if not isinstance(spec.encoding, HashGrid):
        assert engine.encode_backward(x, g).shape == (0, 1)
        return
    grad_table, _ = encode.backward(spec.encoding, table, x, g)
    assert_close(engine.encode_backward(x, g), grad_table, within)
    other = np.random.default_rng(1).normal(size=table.shape)  # <g, T other> = <T^t g, other>
    for j in range(d_in):
        expected = (g * encode.tangent(spec.encoding, other, x, j)).sum()
        size = np.abs(g * encode.tangent(spec.encoding, other, x, j)).sum()
        ours = (engine.encode_backward(x, g, j) * other).sum()
        assert_small(ours - expected, size, within, f"the way back from d h_0 / d x_{j}")


@pytest.mark.parametrize("name", ["hash linear 2", "hash linear 3", "fourier", "one blob"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_row_does_not_depend_on_its_batch(isa, name, dtype):
    spec, theta, x, _y = make(ALL[name], 3, dtype)
    engine = Engine(spec)
    engine.set_parameters(theta)
    whole = engine.forward(x, n_threads=2)
    for n in SIZES:
        assert_same_bits(engine.forward(x[:n]), whole[:n], f"the first {n}")
        assert_same_bits(engine.forward(x[-n:]), whole[-n:], f"the last {n}")
    assert engine.forward(x[:0]).shape == (0, 3)


@pytest.mark.parametrize("name", ["hash linear 2", "tiled smoothstep 4", "random fourier"])
def test_the_gradient_of_the_table_has_the_same_bits_for_any_number_of_threads(isa, name):
    spec, theta, x, y = make(ALL[name], 2, "float32", widths=(64,))
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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_many_windows_of_rows_add_up(dtype):
    spec, theta, x, y = make(grid(), 2, dtype, widths=(2,))
    times = 700  # 140,000 rows: three windows
    engine = Engine(spec)
    engine.set_parameters(theta)
    grad, once = np.empty(spec.n_params, dtype), np.empty(spec.n_params, dtype)
    engine.evaluate(np.tile(x, (times, 1)), np.tile(y, (times, 1)), SquaredError(), grad=grad)
    engine.evaluate(x, y, SquaredError(), grad=once)
    # Sums of so many equal terms in float32 drift: about the square root of their number.
    assert_close(grad, once, 100 * tolerance(dtype) if dtype == "float64" else 1e-3)


HYPERS = {
    "adam": ("adam", {"epsilon": 1e-3, "weight_decay": 0.1, "l2": 0.01}),
    "sgd": ("sgd", {"weight_decay": 0.1}),
    "sgd momentum": ("sgd", {"momentum": 0.9, "l2": 0.01}),
    "sgd nesterov": ("sgd", {"momentum": 0.8, "nesterov": True}),
}
SCHEDULES = {"row blocks": ((9,), 40), "split": ((70, 70), 8), "one batch": ((9,), 200)}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("rule", HYPERS)
@pytest.mark.parametrize("n_threads", [1, 3])
def test_epochs_match_the_twin(isa, n_threads, rule, schedule):
    widths, batch = SCHEDULES[schedule]
    encoding = HashGrid(n_levels=4, log2_table_size=11, finest_resolution=FINEST)
    spec, theta, x, y = make(encoding, 2, widths=widths)
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
    table = spec.table_slice
    m, v = run.get_state()
    if optimizer == "adam":
        untouched = state.v[table] == 0
        assert 0 < np.count_nonzero(untouched) < untouched.size
        assert np.all(engine.get_parameters()[table][untouched] == theta[table][untouched])
        assert_close(v, state.v, within, "second moments")
    if rule != "sgd":  # a table keeps no velocity that is not used
        assert_close(m, state.m, within, "first moments")


@pytest.mark.parametrize("widths", [(64,), (200, 200)], ids=["row blocks", "split"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_resumed_run_has_the_same_bits(isa, optimizer, widths):
    spec, theta, x, y = make(grid(log2_table_size=10), 3, "float32", widths=widths)
    hyper = {} if optimizer == "adam" else {"momentum": 0.9}
    lr = np.full(4 * 5, 0.01)

    def start(theta):
        engine = Engine(spec)
        engine.set_parameters(theta)
        return Run(engine, SquaredError(), optimizer, hyper, batch_size=50, seed=3, n_threads=2)

    straight = start(theta)
    straight.epochs(x, y, lr, first_epoch=0, n_epochs=5)
    again = start(theta)
    again.epochs(x, y, lr, first_epoch=0, n_epochs=5)
    assert_same_bits(
        again.engine.get_parameters(), straight.engine.get_parameters(), "the same run"
    )
    first = start(theta)
    first.epochs(x, y, lr[:8], first_epoch=0, n_epochs=2)
    second = start(first.engine.get_parameters())
    second.set_state(*first.get_state(), first.step)
    second.epochs(x, y, lr[8:], first_epoch=2, n_epochs=3)
    assert_same_bits(
        second.engine.get_parameters(), straight.engine.get_parameters(), "the resumed run"
    )


def test_gradients_after_training_see_the_trained_weights(isa):
    net = lamina.Network(2, (32,), 1, encoding=grid(), dtype="float64", rng=0)
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-1, 1, (300, 2)), rng.normal(size=(300, 1))
    lamina.train(net, x, y, max_epochs=3, rng=0)
    _value, grad, grad_x = reference.evaluate(net.spec, net.theta, Data(x, y), SquaredError())
    ours = net.gradients(x, y)
    assert_close(ours.table.ravel(), grad[net.spec.table_slice], tolerance("float64"))
    assert_close(ours.x, grad_x, tolerance("float64"))


def test_nan_and_infinity_stay_in_their_rows(isa):
    for encoding, dtype in itertools.product(ALL.values(), ("float32", "float64")):
        spec, theta, x, _y = make(encoding, 2, dtype)
        engine = Engine(spec)
        engine.set_parameters(theta)
        bad = x.copy()
        bad[3, 0], bad[17, 1], bad[40] = np.nan, np.inf, [-np.inf, 1e30]
        with np.errstate(over="ignore"):
            out, clean = engine.forward(bad), engine.forward(x)
        others = np.delete(np.arange(len(x)), [3, 17, 40])
        assert_same_bits(out[others], clean[others], "other rows")
        assert np.isnan(out[3]).all()
        if isinstance(encoding, HashGrid):  # the box's nearest point
            assert np.isfinite(out[[17, 40]]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_waves_stay_exact_far_from_the_origin(isa, dtype):
    x = np.array([[1e3 + 0.25], [4097.125], [-65535.5], [3.0], [2.0**23]], dtype)
    spec = NetworkSpec.create(1, (), 10, encoding=Fourier(5, include_input=False), dtype=dtype)
    theta = np.zeros(spec.n_params)
    theta[:100] = np.eye(10).ravel()
    engine = Engine(spec)
    engine.set_parameters(theta)
    turns = np.mod(x.astype(float) * 2.0 ** np.arange(5), 2.0)  # exact in float64
    expected = np.stack([np.sin(np.pi * turns), np.cos(np.pi * turns)], axis=2).reshape(5, 10)
    assert_small(engine.forward(x) - expected, 1.0, rounding(dtype), "waves")


@pytest.mark.parametrize(
    "encoding",
    [
        ("grid", [2, 0], [-1.0, 1.0]),
        ("grid", [5, 0, 4, 32, 0, 0], [-1.0, 1.0]),
        ("grid", [2, 0, 4, 16, 0, 0], [-1.0, 1.0]),  # fewer entries than corners
        ("grid", [2, 0, 4, 48, 1, 1], [-1.0, 1.0]),  # not a power of two
        ("grid", [2, 0, 4, 33, 0, 0], [-1.0, 1.0]),
        ("grid", [2, 0, 4, 64, 1, 0], [-1.0, 1.0]),
        ("grid", [2, 0, -4, 64, 1, 1], [-1.0, 1.0]),
        ("grid", [2, 0, 4, 2**40, 1, 1], [-1.0, 1.0]),
        ("grid", [2, 0, 4, 64, 1, 1], [1.0, -1.0]),
        ("grid", [2, 0, 4, 64, 1, 1], [-1.0, float("inf")]),
        ("sinusoid", [], []),
        ("sinusoid", [2, 0, 0, 9], [1.0, 1.0, 0.0, 0.0]),  # an axis that is not there
        ("sinusoid", [2, 0, 0, 1], [1.0, 1.0, 0.0]),
        ("sinusoid", [2, 1, 0, 1], [1.0, 1.0, 0.0, 0.0]),
        ("blob", [2**40, 0], []),
        ("spiral", [], []),
    ],
    ids=str,
)
def test_the_binding_refuses_what_would_read_beyond_an_array(encoding):
    with pytest.raises(ValueError, match=r"."):
        _native.Engine32(2, [(1, "identity", [0], False, 0.0)], "identity", encoding)
