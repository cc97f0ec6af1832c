"""Whole epochs of the engine against the slow twin, itself held to PyTorch's and scikit-learn's."""

import dataclasses

import numpy as np
import pytest
from tests.tolerances import assert_close, assert_same_bits

from lamina import _native
from lamina.core import reference
from lamina.core.engine import Engine, Run
from lamina.core.losses import BinaryCrossEntropy, CrossEntropy, Huber, Pinball, SquaredError
from lamina.core.reference import Data, Hyper, State, adam_step, sgd_step
from lamina.core.spec import NetworkSpec

N_EPOCHS, N = 2, 150
HYPERS = {
    "adam": ("adam", {}),
    "adam everything": (
        "adam",
        {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3, "weight_decay": 0.1, "l2": 0.01},
    ),
    "adam as scikit-learn": (
        "adam",
        {"epsilon": 1e-3, "epsilon_hat": True, "l2": 0.3, "l2_per_row": True},
    ),
    "sgd": ("sgd", {"l2": 0.01}),
    "sgd momentum": ("sgd", {"momentum": 0.9, "weight_decay": 0.1}),
    "sgd nesterov": ("sgd", {"momentum": 0.8, "nesterov": True, "l2": 0.3, "l2_per_row": True}),
}
NETWORKS = {  # the split schedule is for small batches of big networks, row blocks for the rest
    "row blocks": (5, (6, 6), 40),
    "one batch": (5, (6, 6), 150),
    "many blocks": (64, (80,), 150),
    "split": (40, (70, 70), 16),
    "linear": (5, (), 32),
}
LOSSES = {
    "classes": (CrossEntropy(0.1), "softmax"),
    "numbers": (SquaredError(), "identity"),
    "labels": (BinaryCrossEntropy(), "sigmoid"),
    "quantiles": (Pinball((0.1, 0.9)), "identity"),
    "huber": (Huber(0.7), "identity"),
}


@pytest.fixture(params=_native.isas())
def isa(request):
    before = _native.isa()
    _native.set_isa(request.param)
    yield request.param
    _native.set_isa(before)


def make(loss, output, d_in, widths, weighted, dtype="float64", **more):
    spec = NetworkSpec.create(
        d_in, widths, 4, activation="tanh", output=output, dtype=dtype, **more
    )
    rng = np.random.default_rng(0)
    theta = rng.normal(0, 0.3, spec.n_params)
    y = rng.normal(size=(N, 4))
    if isinstance(loss, CrossEntropy):
        y = rng.integers(0, 4, N).astype(np.int32)
    if isinstance(loss, BinaryCrossEntropy):
        y = rng.integers(0, 2, (N, 4)).astype(float)
    if isinstance(loss, Pinball):
        y = y[:, :2]
    weights = (rng.uniform(0, 2, N), rng.uniform(0.5, 2, 4)) if weighted else (None, None)
    return spec, theta, Data(rng.normal(size=(N, d_in)), y, *weights)


def train(spec, theta, data, loss, kind, hyper, batch, order, lr, n_threads):
    engine = Engine(spec)
    engine.set_parameters(theta)
    run = Run(engine, loss, kind, hyper, batch_size=batch, seed=3, n_threads=n_threads)
    weights = {"sample_weight": data.sample_weight, "output_weight": data.output_weight}
    losses, diverged = run.epochs(
        data.x, data.y, lr, first_epoch=0, n_epochs=len(order), order=order, **weights
    )
    assert not diverged
    return engine.get_parameters(), losses, run


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("target", LOSSES)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("optimizer", HYPERS)
def test_epochs_match_the_slow_twin(optimizer, network, target, weighted, n_threads):
    (kind, hyper), (d_in, widths, batch) = HYPERS[optimizer], NETWORKS[network]
    loss, output = LOSSES[target]
    spec, theta, data = make(loss, output, d_in, widths, weighted)
    rng = np.random.default_rng(1)
    order = np.stack([rng.permutation(N) for _ in range(N_EPOCHS)])
    n_batches = -(-N // batch)
    lr = np.linspace(0.02, 0.01, N_EPOCHS * n_batches)
    ours, losses, run = train(spec, theta, data, loss, kind, hyper, batch, order, lr, n_threads)

    state, expected = State.start(theta), []
    step = adam_step if kind == "adam" else sgd_step
    for epoch in range(N_EPOCHS):
        rates = lr[epoch * n_batches : (epoch + 1) * n_batches]
        batches = reference.split(order[epoch], batch)
        state, value = reference.train_epoch(
            spec, state, data, loss, step, dataclasses.replace(Hyper(), **hyper), batches, rates
        )
        expected.append(value)
    m, v = run.get_state()
    assert_close(losses, expected, 1e-12, "losses")
    assert_close(ours, state.theta, 1e-10, "theta")
    assert_close(m, state.m, 1e-10, "m")
    if kind == "adam":
        assert_close(v, state.v, 1e-10, "v")
    assert run.step == N_EPOCHS * n_batches


def test_every_isa_trains_alike_in_float32(isa):
    loss, output = LOSSES["classes"]
    spec, theta, data = make(loss, output, 40, (70, 33), False, "float32")
    order = np.arange(N)[np.newaxis]
    lr = np.full(10, 0.01)
    ours, losses, _ = train(spec, theta, data, loss, "adam", {}, 16, order, lr, 2)
    state, value = reference.train_epoch(
        spec, State.start(theta), data, loss, adam_step, Hyper(), reference.split(order[0], 16), lr
    )
    assert_close(losses, [value], 1e-5)
    # Adam divides by sqrt(v): where a gradient is near zero, its sign decides a whole step of lr
    assert np.quantile(np.abs(ours - state.theta), 0.99) < 1e-4


def test_shuffled_epochs_visit_every_row_once_and_differ():
    spec = NetworkSpec.create(1, (), 1, dtype="float64")
    n = 1000
    x = np.zeros((n, 1))
    y = np.arange(n, dtype=float)[:, np.newaxis]
    seen = []
    for epoch in range(3):
        engine = Engine(spec)
        engine.set_parameters(np.zeros(2))
        run = Run(engine, SquaredError(), "sgd", {}, batch_size=1, seed=9)
        # with lr 1/2 and batches of one, the bias becomes exactly the target just seen
        lr = np.zeros(n)
        lr[:7] = 0.5
        run.epochs(x, y, lr, first_epoch=epoch, n_epochs=1)
        seen.append(float(engine.get_parameters()[1]))
        losses, _ = run.epochs(x, y, np.zeros(n), first_epoch=epoch, n_epochs=1)
        assert_close(losses[0], np.mean((y - seen[-1]) ** 2), 1e-12)  # all rows, whatever the order
    assert len(set(seen)) == 3, "each epoch has its own order"


@pytest.mark.parametrize("n", [1, 2, 1000, (1 << 20) + 3])
def test_an_epoch_visits_rows_in_the_slow_twins_order(n):
    spec = NetworkSpec.create(1, (), 1, dtype="float64")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, 1)), rng.normal(size=(n, 1))
    order = reference.epoch_order(n, seed=2**64 - 5, epoch=3)
    assert np.array_equal(np.sort(order), np.arange(n))
    lr = np.full(-(-n // 64), 0.05)
    thetas = []
    for given in (None, order[np.newaxis].astype(np.int64)):
        engine = Engine(spec)
        engine.set_parameters(np.zeros(2))
        run = Run(engine, SquaredError(), "sgd", {}, batch_size=min(n, 64), seed=2**64 - 5)
        run.epochs(x, y, lr, first_epoch=3, n_epochs=1, order=given)
        thetas.append(engine.get_parameters())
    assert np.array_equal(*thetas), "each step saw the same rows"


def test_every_order_of_many_rows_is_about_as_likely():
    n = (1 << 20) + 1
    order = reference.epoch_order(n, seed=1, epoch=0)
    # neighbours, and place against row, are uncorrelated: |r| below 5 / sqrt(n)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 5 / np.sqrt(n)
    assert abs(np.corrcoef(order, np.arange(n))[0, 1]) < 5 / np.sqrt(n)


def test_a_run_resumes_from_its_state_bit_for_bit():
    loss, output = LOSSES["classes"]
    spec, theta, data = make(loss, output, 40, (70, 70), True, dropout=0.3)
    n_batches = -(-N // 16)

    def new(theta):
        engine = Engine(spec)
        engine.set_parameters(theta)
        return engine, Run(engine, loss, "adam", {}, batch_size=16, seed=11, n_threads=2)

    def go(run, first, n):
        run.epochs(data.x, data.y, np.full(n * n_batches, 0.01), first_epoch=first, n_epochs=n)

    engine, run = new(theta)
    go(run, 0, 5)
    whole = engine.get_parameters()
    engine, run = new(theta)
    go(run, 0, 2)
    m, v = run.get_state()
    engine_2, run_2 = new(engine.get_parameters())
    run_2.set_state(m, v, run.step)
    go(run_2, 2, 3)
    assert_same_bits(engine_2.get_parameters(), whole)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_expected_share_and_scales_it(isa, dtype, rate):
    # x = 1, identity units, output = mean over units: y_pred is the mean of a row's masks
    width, n = 500, 64
    spec = NetworkSpec.create(1, (width,), 1, activation="identity", dropout=rate, dtype=dtype)
    theta = np.concatenate([np.ones(width), np.zeros(width), np.full(width, 1 / width), [0.0]])
    engine = Engine(spec)
    engine.set_parameters(theta.astype(dtype))
    run = Run(engine, SquaredError(), "sgd", {}, batch_size=n, seed=2, n_threads=2)
    x, y = np.ones((n, 1), dtype), np.zeros((n, 1), dtype)
    n_epochs = 50
    losses, _ = run.epochs(x, y, np.zeros(n_epochs), first_epoch=0, n_epochs=n_epochs)
    # y_pred is a mean of `width` masks: mean 1, variance rate / (1 - rate) / width
    expected = 1 + rate / (1 - rate) / width
    spread = 2 * np.sqrt(rate / (1 - rate) / width / (n * n_epochs))
    assert abs(losses.mean() - expected) < 5 * spread
    assert losses.std() > 0, "each step draws new masks"
    # and the gradient uses the same masks as the forward pass: one step moves W_2 by masks only
    lr = np.ones(1)
    before = engine.get_parameters()
    run.epochs(x, y, lr, first_epoch=0, n_epochs=1)
    moved = (before - engine.get_parameters())[2 * width : 3 * width]
    per_unit = np.asarray(moved, float)
    assert per_unit.min() >= 0
    levels = per_unit.mean() / 2  # d loss / d w_2 = 2 mean(y_pred * mask): about 2
    assert abs(levels - 1) < 0.1 / (1 - rate)


def test_a_lost_run_says_so_and_stops():
    spec = NetworkSpec.create(3, (8,), 2, dtype="float32")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 3)), rng.normal(size=(100, 2))
    engine = Engine(spec)
    engine.set_parameters(rng.normal(size=spec.n_params).astype(np.float32))
    run = Run(engine, SquaredError(), "sgd", {}, batch_size=10, seed=0)
    losses, diverged = run.epochs(x, y, np.full(10 * 50, 1e6), first_epoch=0, n_epochs=50)
    assert diverged
    assert len(losses) < 50
