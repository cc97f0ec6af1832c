"""train: against PyTorch and closed forms; held-out rows, stops, resumption, errors, Ctrl-C."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from tests.tolerances import assert_close, assert_same_bits, rounding

import lamina
from lamina.core.engine import Run
from lamina.core.watch import Rows, hold_out

D = 3


def make(d_out=2, output="softmax", dtype="float64", **kwargs):
    kwargs = {"activation": "tanh", "rng": 0} | kwargs
    return lamina.Network(D, (8,), d_out, output=output, dtype=dtype, **kwargs)


def classes(n=97, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, D))
    return x, (x[:, 0] * x[:, 1] > 0).astype(int)


def numbers(n=97, d_out=2, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, D))
    return x, np.sin(x @ rng.normal(size=(D, d_out)))


def stop_after(n_epochs):
    return lambda report: report.epoch + 1 == n_epochs


# --- against PyTorch: whole batches, so that the order of rows does not matter -----------------

OPTIMIZERS = {
    "default": (None, lambda w, b: torch.optim.AdamW(split(w, b, 1e-2), lr=1e-3)),
    "adamw": (
        lamina.AdamW(0.02, 0.8, 0.95, 1e-6, weight_decay=0.1),
        lambda w, b: torch.optim.AdamW(split(w, b, 0.1), lr=0.02, betas=(0.8, 0.95), eps=1e-6),
    ),
    "adam": (lamina.Adam(0.02), lambda w, b: torch.optim.Adam([*w, *b], lr=0.02)),
    "sgd_l2": (
        lamina.SGD(0.1, l2=0.05),  # PyTorch's weight_decay is our l2
        lambda w, b: torch.optim.SGD(split(w, b, 0.05), lr=0.1),
    ),
    "momentum": (
        lamina.SGD(0.1, momentum=0.9),
        lambda w, b: torch.optim.SGD([*w, *b], lr=0.1, momentum=0.9),
    ),
    "nesterov": (
        lamina.SGD(0.1, momentum=0.9, nesterov=True),
        lambda w, b: torch.optim.SGD([*w, *b], lr=0.1, momentum=0.9, nesterov=True),
    ),
}


def split(weights, biases, decay):
    return [
        {"params": weights, "weight_decay": decay},
        {"params": biases, "weight_decay": 0.0},
    ]


def torch_train(net, x, y, make_optimizer, n_steps, make_schedule=None):
    weights = [torch.tensor(w, requires_grad=True) for w in net.weights]
    biases = [torch.tensor(b, requires_grad=True) for b in net.biases]
    optimizer = make_optimizer(weights, biases)
    schedule = make_schedule(optimizer) if make_schedule else None
    for _ in range(n_steps):
        h = torch.tanh(torch.tensor(x) @ weights[0].T + biases[0])
        loss = ((h @ weights[1].T + biases[1] - torch.tensor(y)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if schedule:
            schedule.step()
    arrays = [weights[0], biases[0], weights[1], biases[1]]
    return np.concatenate([a.detach().numpy().ravel() for a in arrays])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_matches_pytorch(name):
    optimizer, make_theirs = OPTIMIZERS[name]
    x, y = numbers()
    net = make(output="identity")
    expected = torch_train(net, x, y, make_theirs, 25)
    lamina.train(net, x, y, optimizer=optimizer, batch_size=len(x), max_epochs=25, rng=0)
    assert_close(net.theta, expected, rounding("float64", 25 * len(x), c=100))


def test_a_schedule_moves_the_learning_rate_as_pytorchs_does():
    x, y = numbers()
    net = make(output="identity")
    expected = torch_train(
        net,
        x,
        y,
        lambda w, b: torch.optim.SGD([*w, *b], lr=0.5),
        20,
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20),
    )
    seen = []
    lamina.train(
        net,
        x,
        y,
        optimizer=lamina.SGD(lamina.cosine(0.5)),
        batch_size=len(x),
        max_epochs=20,
        callbacks=lambda report: seen.append(report.lr),
    )
    assert_close(net.theta, expected, rounding("float64", 20 * len(x), c=100))
    assert_close(seen, 0.25 * (1 + np.cos(np.pi * np.arange(20) / 20)), rounding("float64", 20))


def test_the_train_loss_is_the_loss_before_the_step_with_its_penalty():
    x, y = numbers()
    w = np.linspace(0.1, 2, len(x))
    net = make(output="identity")
    penalty = 0.5 * 0.3 * sum((a**2).sum() for a in net.weights)
    before = net.loss(x, y, sample_weight=w) + penalty
    history = lamina.train(
        net, x, y, sample_weight=w, optimizer=lamina.SGD(0.1, l2=0.3), batch_size=500, max_epochs=1
    )
    assert_close(history.train_loss, [before], rounding("float64", len(x)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_learns(dtype):
    x, y = classes(400)
    net = make(dtype=dtype)
    history = lamina.train(
        net, x, y, optimizer=lamina.Adam(0.02), batch_size=50, max_epochs=60, rng=0
    )
    assert (net(x).argmax(axis=1) == y).mean() > 0.95
    assert history.train_loss[-1] < 0.3 * history.train_loss[0]


# --- L-BFGS against closed forms and scikit-learn ----------------------------------------------


def test_lbfgs_solves_ridge_regression():
    x, y = numbers(60)
    l2 = 0.02
    net = lamina.Network(D, (), 2, dtype="float64", rng=0)
    history = lamina.train(
        net, x, y, optimizer=lamina.LBFGS(l2=l2, tol=1e-10, max_iter=500), max_epochs=3
    )
    # mean over rows and both outputs + l2/2 |W|^2 = (1/(2n)) (sum of squares + n l2 |W|^2)
    ridge = Ridge(alpha=60 * l2).fit(x, y)
    assert_close(net.weights[0], ridge.coef_, 1e-8)
    assert_close(net.biases[0], ridge.intercept_, 1e-8)
    assert history.stopped == "converged"
    assert history.state is None
    assert 3 < history.epochs == len(history.times) < 500


def test_lbfgs_solves_logistic_regression():
    x, y = classes(80)
    y = (x[:, 0] + 0.5 * np.random.default_rng(1).normal(size=80) > 0).astype(float)
    net = lamina.Network(D, (), 1, output="sigmoid", dtype="float64", rng=0)
    l2 = 0.01
    w = np.linspace(0.5, 1.5, 80)
    w /= w.mean()
    lamina.train(net, x, y, sample_weight=w, optimizer=lamina.LBFGS(l2=l2, tol=1e-10))
    theirs = LogisticRegression(C=1 / (80 * l2), tol=1e-10, max_iter=1000).fit(x, y, w)
    assert_close(net.weights[0], theirs.coef_, 1e-7)


def test_lbfgs_in_float32_ends_and_stops_when_asked():
    x, y = classes()
    net = make(dtype="float32")
    history = lamina.train(net, x, y, optimizer=lamina.LBFGS(l2=1e-3), max_epochs=2000)
    assert history.stopped == "converged"
    history = lamina.train(make(), x, y, optimizer=lamina.LBFGS(), callbacks=stop_after(3))
    assert (history.stopped, history.epochs) == ("callback", 3)
    history = lamina.train(make(), x, y, optimizer=lamina.LBFGS(), max_epochs=4)
    assert (history.stopped, history.epochs) == ("max_epochs", 4)
    history = lamina.train(make(), x, y, optimizer=lamina.LBFGS(), max_seconds=1e-9)
    assert (history.stopped, history.epochs) == ("max_seconds", 1)


def test_lbfgs_keeps_the_iterate_with_the_lowest_validation_loss():
    x, y = classes(40)
    other = classes(40, seed=1)
    net = make()
    history = lamina.train(net, x, y, optimizer=lamina.LBFGS(), validation=other, max_epochs=40)
    assert history.best_epoch == int(np.argmin(history.validation_loss)) < 39
    assert_close(net.loss(*other), min(history.validation_loss), rounding("float64", 40))


# --- held-out rows -----------------------------------------------------------------------------


def test_the_best_epoch_is_restored():
    x, y = classes(60)
    other = classes(60, seed=1)
    net = make()
    history = lamina.train(
        net, x, y, validation=other, optimizer=lamina.Adam(0.1), max_epochs=60, batch_size=10, rng=0
    )
    best = history.best_epoch
    assert best == int(np.argmin(history.validation_loss))
    assert best < 59
    assert history.validation_loss[-1] > history.validation_loss[best]
    tolerance = rounding("float64", 60)
    assert_close(net.loss(*other), history.validation_loss[best], tolerance)
    score = (net(other[0]).argmax(axis=1) == other[1]).mean()
    assert_close(history.validation_score[best], score, tolerance)
    # the same bits as stopping there
    again = make()
    lamina.train(again, x, y, optimizer=lamina.Adam(0.1), max_epochs=best + 1, batch_size=10, rng=0)
    assert_same_bits(again.theta, net.theta)


def test_patience_counts_epochs_without_a_lower_loss():
    x, y = classes(60)
    history = lamina.train(
        make(), x, y, validation=(x, 1 - y), optimizer=lamina.SGD(0.5), patience=4, rng=0
    )
    best = history.best_epoch
    assert history.stopped == "patience"
    assert history.epochs == best + 1 + 4
    assert min(history.validation_loss[best + 1 :]) >= history.validation_loss[best]


def test_held_out_rows_are_a_share_and_never_trained_on():
    x, y = numbers(100)
    x[:, 0] = np.arange(100)  # names the rows
    rest, held = hold_out(Rows(x, y, np.arange(1.0, 101.0)), 0.3, seed=7)
    assert (len(rest), len(held)) == (70, 30)
    assert sorted([*rest.x[:, 0], *held.x[:, 0]]) == list(range(100))
    for part in (rest, held):
        assert_same_bits(part.x[:, 0] + 1, part.sample_weight)
    assert_same_bits(hold_out(Rows(x, y), 0.3, seed=7)[1].x, held.x)
    assert (hold_out(Rows(x, y), 0.3, seed=8)[1].x != held.x).any()
    assert [len(part) for part in hold_out(Rows(x[:2], y[:2]), 0.9, 0)] == [1, 1]


def test_validation_by_share_is_validation_by_those_rows():
    x, y = numbers(50)
    net, twin = make(output="identity"), make(output="identity")
    history = lamina.train(net, x, y, validation=0.2, max_epochs=5, rng=3, batch_size=8)
    rest, held = hold_out(Rows(x, y), 0.2, history.seed)
    assert history.state["n_rows"] == 40
    by_pair = lamina.train(
        twin, rest.x, rest.y, validation=(held.x, held.y), max_epochs=5, rng=3, batch_size=8
    )
    assert by_pair.validation_loss == history.validation_loss
    assert_same_bits(twin.theta, net.theta)
    residual = ((net(held.x) - held.y) ** 2).sum(axis=0) / held.y.var(axis=0) / 10
    best = history.best_epoch
    assert_close(history.validation_score[best], 1 - residual.mean(), rounding("float64", 50))


def test_the_score_of_yes_or_no_is_accuracy_and_of_counts_minus_the_loss():
    x, y = classes()
    net = make(1, "sigmoid")
    history = lamina.train(net, x, y, validation=(x, y), max_epochs=1)
    assert history.validation_score == [((net(x)[:, 0] > 0.5) == y).mean()]
    net = make(1, "exp")
    history = lamina.train(net, x, y, validation=(x, y), max_epochs=2)
    assert history.validation_score == [-loss for loss in history.validation_loss]


# --- weights -----------------------------------------------------------------------------------


def test_a_row_of_weight_zero_is_as_if_it_were_not_there():
    x, y = classes()
    w = np.ones(len(x))
    w[:40] = 0  # whole batches of them
    net, twin = make(), make()
    a = lamina.train(net, x, y, sample_weight=w, batch_size=8, max_epochs=3, rng=0)
    b = lamina.train(twin, x[40:], y[40:], sample_weight=w[40:], batch_size=8, max_epochs=3, rng=0)
    assert a.train_loss == b.train_loss
    assert_same_bits(net.theta, twin.theta)


def test_a_weight_of_two_is_a_row_twice():
    x, y = numbers(30)
    w = np.ones(30)
    w[:10] = 2
    net, twin = make(output="identity"), make(output="identity")
    lamina.train(net, x, y, sample_weight=w, batch_size=100, max_epochs=5)
    lamina.train(twin, np.vstack([x, x[:10]]), np.vstack([y, y[:10]]), batch_size=100, max_epochs=5)
    assert_close(net.theta, twin.theta, rounding("float64", 5 * 40, c=100))


# --- repetition and resumption -----------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_same_seed_gives_the_same_bits(dtype):
    x, y = classes()

    def go(rng):
        net = make(dtype=dtype, dropout=0.3)
        history = lamina.train(net, x, y, batch_size=16, max_epochs=5, rng=rng, validation=0.2)
        return net.theta, history

    theta, history = go(4)
    again, repeated = go(np.random.default_rng(4))
    assert_same_bits(again, theta)
    assert repeated.train_loss == history.train_loss
    assert repeated.seed == history.seed
    assert (go(5)[0] != theta).any()


RESUMED = {
    "adamw": {"optimizer": None},
    "sgd": {"optimizer": lamina.SGD(0.1, momentum=0.9)},
    "cosine": {"optimizer": lamina.AdamW(lamina.cosine(0.02, warmup=0.2))},
    "one_cycle": {"optimizer": lamina.SGD(lamina.one_cycle(0.1), momentum=0.5, nesterov=True)},
    "share": {"optimizer": None, "validation": 0.25},
    "pair": {"optimizer": lamina.Adam(0.05), "validation": classes(30, seed=5), "patience": 9},
    "weights": {"optimizer": None, "sample_weight": np.linspace(0, 1, 97)},
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", RESUMED)
def test_four_epochs_and_six_resumed_are_ten(name, dtype):
    x, y = classes()
    same = {"batch_size": 16, "max_epochs": 10, **RESUMED[name]}
    whole, parts = make(dtype=dtype, dropout=0.2), make(dtype=dtype, dropout=0.2)
    expected = lamina.train(whole, x, y, rng=1, **same)
    first = lamina.train(parts, x, y, rng=1, callbacks=stop_after(4), **same)
    assert (first.epochs, first.stopped) == (4, "callback")
    first = pickle.loads(pickle.dumps(first))
    fresh = make(dtype=dtype, dropout=0.2, rng=99)  # parameters come from the history
    second = lamina.train(fresh, x, y, resume=first, **same)
    assert_same_bits(fresh.theta, whole.theta)
    assert second.train_loss == expected.train_loss
    assert second.validation_loss == expected.validation_loss
    assert second.validation_score == expected.validation_score
    assert second.best_epoch == expected.best_epoch
    assert second.seed == expected.seed
    assert (second.epochs, first.epochs) == (10, 4)
    assert second.times == sorted(second.times)
    for key in ("theta", "m", "v"):
        assert_same_bits(second.state[key], expected.state[key])
    assert second.state["step"] == expected.state["step"]


def test_a_best_epoch_before_the_resumption_is_still_restored():
    x, y = classes()
    same = {"validation": (x, 1 - y), "max_epochs": 16, "batch_size": 16}
    same["optimizer"] = lamina.Adam(0.05)
    whole, parts = make(), make()
    expected = lamina.train(whole, x, y, rng=1, **same)
    first = lamina.train(parts, x, y, rng=1, callbacks=stop_after(10), **same)
    second = lamina.train(parts, x, y, resume=first, **same)
    assert second.best_epoch == expected.best_epoch < 10
    assert_same_bits(parts.theta, whole.theta)


def test_a_constant_rate_may_be_resumed_to_more_epochs_than_first_planned():
    x, y = classes()
    whole, parts = make(), make()
    lamina.train(whole, x, y, max_epochs=10, batch_size=16, rng=1)
    first = lamina.train(parts, x, y, max_epochs=4, batch_size=16, rng=1)
    second = lamina.train(parts, x, y, max_epochs=10, batch_size=16, resume=first)
    assert_same_bits(parts.theta, whole.theta)
    assert second.stopped == "max_epochs"


def test_resuming_a_run_that_is_over_changes_nothing():
    x, y = classes()
    net = make()
    first = lamina.train(net, x, y, max_epochs=3, rng=1)
    theta = net.theta
    second = lamina.train(net, x, y, max_epochs=3, resume=first)
    assert_same_bits(net.theta, theta)
    assert second.train_loss == first.train_loss


def test_the_state_is_json_and_arrays():
    x, y = classes()
    state = lamina.train(make(), x, y, max_epochs=2, validation=0.2).state
    arrays = {key for key, value in state.items() if isinstance(value, np.ndarray)}
    assert arrays == {"theta", "m", "v", "best_theta"}
    plain = {key: value for key, value in state.items() if key not in arrays}
    assert json.loads(json.dumps(plain)) == plain


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 8},
        {"optimizer": lamina.SGD(0.1)},
        {"validation": 0.2},
        {"validation": classes()},
        {"x": classes(50)[0], "y": classes(50)[1]},
        {"net": make(dtype="float32")},
        {"net": make(rng=0, skips={2: (0,)})},
        {"max_epochs": 9},
        {"resume": "history"},
        {"resume": lamina.History()},
        {"optimizer": lamina.LBFGS()},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_run_that_is_another_cannot_be_resumed(change):
    x, y = classes()
    schedule = lamina.AdamW(lamina.cosine(0.01))
    first = lamina.train(make(), x, y, batch_size=16, max_epochs=4, optimizer=schedule)
    arguments = {"net": make(), "x": x, "y": y, "batch_size": 16, "max_epochs": 4}
    arguments |= {"optimizer": schedule, "resume": first} | change
    with pytest.raises(lamina.SpecError, match=r"^train: expected .*, got .*\. .*\.$"):
        lamina.train(arguments.pop("net"), arguments.pop("x"), arguments.pop("y"), **arguments)


# --- between epochs ----------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch):
    """Return the list of how many epochs each call into the engine was asked for."""
    seen = []
    original = Run.epochs

    def spy(self, *args, **kwargs):
        seen.append(kwargs["n_epochs"])
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Run, "epochs", spy)
    return seen


def test_a_run_that_nobody_watches_is_one_call_to_the_engine(calls):
    lamina.train(make(), *classes(), max_epochs=50)
    assert calls == [50]


def test_a_long_run_is_cut_without_a_trace(calls, monkeypatch):
    x, y = classes()
    whole, cut = make(), make()
    expected = lamina.train(whole, x, y, max_epochs=6, batch_size=16, rng=0)
    monkeypatch.setattr("lamina.core.descent.SNAPSHOT_SECONDS", 0.0)
    history = lamina.train(cut, x, y, max_epochs=6, batch_size=16, rng=0)
    assert calls == [6, 6, 5, 4, 3, 2, 1]
    assert_same_bits(cut.theta, whole.theta)
    assert history.train_loss == expected.train_loss


def test_learning_rates_for_endless_runs_do_not_fill_the_memory(calls):
    history = lamina.train(make(), *classes(), max_epochs=10**15, max_seconds=0.05)
    assert history.stopped == "max_seconds"
    assert max(calls) <= 1 << 20


def test_callbacks_see_every_epoch_and_the_networks_parameters():
    x, y = classes()
    net = make()
    reports, losses = [], []

    def note(report):
        reports.append(report)
        losses.append(net.loss(x, y))

    history = lamina.train(
        net, x, y, max_epochs=5, validation=(x, y), callbacks=[note, lambda report: None]
    )
    assert [report.epoch for report in reports] == [0, 1, 2, 3, 4]
    assert [report.train_loss for report in reports] == history.train_loss
    assert [report.validation_loss for report in reports] == history.validation_loss
    assert [report.validation_score for report in reports] == history.validation_score
    assert [report.seconds for report in reports] == history.times
    assert reports[0].max_epochs == 5
    assert reports[0].lr == 1e-3
    assert reports[0].is_best
    assert_close(losses, history.validation_loss, rounding("float64", len(x)))


def test_a_callback_that_returns_true_stops_and_one_that_returns_something_else_does_not():
    x, y = classes()
    net, twin = make(), make()
    history = lamina.train(net, x, y, callbacks=stop_after(3), rng=0)
    assert (history.stopped, history.epochs) == ("callback", 3)
    lamina.train(twin, x, y, max_epochs=3, rng=0)
    assert_same_bits(net.theta, twin.theta)
    history = lamina.train(make(), x, y, max_epochs=3, callbacks=lambda report: "yes")
    assert history.stopped == "max_epochs"


def test_an_error_in_a_callback_passes_and_leaves_that_epochs_parameters():
    x, y = classes()
    net, twin = make(), make()

    def fail(report):
        if report.epoch == 1:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        lamina.train(net, x, y, callbacks=fail, rng=0)
    lamina.train(twin, x, y, max_epochs=2, rng=0)
    assert_same_bits(net.theta, twin.theta)


def test_a_run_limited_by_time_is_repeated_by_its_epochs():
    x, y = classes()
    net, twin = make(), make()
    history = lamina.train(net, x, y, max_epochs=10**6, max_seconds=0.1, rng=0)
    assert history.stopped == "max_seconds"
    assert 1 < history.epochs < 10**6
    assert 0.1 <= history.times[-1] < 1.0
    again = lamina.train(twin, x, y, max_epochs=history.epochs, rng=0)
    assert again.train_loss == history.train_loss
    assert_same_bits(twin.theta, net.theta)


def test_the_history_says_what_ran():
    x, y = classes()
    history = lamina.train(make(), x, y, max_epochs=3, n_threads=1, validation=0.1)
    assert history.n_threads == 1
    assert history.isa == lamina.info()["isa"]
    assert len(history.times) == history.epochs == 3
    assert 0 < history.times[0] <= history.times[1] <= history.times[2]
    assert "epochs=3" in repr(history)
    assert "'max_epochs'" in repr(history)
    assert lamina.train(make(), x, y, max_epochs=1).best_epoch is None


# --- when it goes wrong ------------------------------------------------------------------------


@pytest.mark.parametrize("watched", [False, True])
def test_divergence_leaves_the_last_finite_epoch_and_gives_advice(watched):
    x, y = numbers(d_out=1)
    arguments = {"optimizer": lamina.SGD(3.0), "batch_size": 97, "rng": 0}
    if watched:
        arguments["callbacks"] = lambda report: None
    make_net = lambda: lamina.Network(D, (), 1, dtype="float32", rng=0)  # noqa: E731
    net = make_net()
    with pytest.raises(lamina.DivergenceError, match=r"^train: .*NaN.* Lower lr") as error:
        lamina.train(net, x, y, max_epochs=1000, **arguments)
    assert isinstance(error.value, lamina.LaminaError)
    assert np.isfinite(net.theta).all()
    n_epochs = int(str(error.value).split("epoch ")[1].split(".")[0])
    assert n_epochs > 5
    twin = make_net()
    lamina.train(twin, x, y, max_epochs=n_epochs, **arguments)
    assert_same_bits(net.theta, twin.theta)
    with pytest.raises(lamina.DivergenceError):  # the next one was too many
        lamina.train(make_net(), x, y, max_epochs=n_epochs + 1, **arguments)


def test_divergence_in_the_first_epoch_leaves_the_network_as_it_was():
    x, y = numbers(d_out=1)
    net = lamina.Network(D, (8,), 1, rng=0)
    before = net.theta
    with pytest.raises(lamina.DivergenceError, match="epoch 0"):
        lamina.train(net, x, y, optimizer=lamina.SGD(1e30), batch_size=4)
    assert_same_bits(net.theta, before)


def test_a_last_step_to_infinity_is_divergence_though_every_loss_was_finite():
    x, y = numbers(d_out=1)
    net = lamina.Network(D, (), 1, dtype="float32", rng=0)
    before = net.theta
    with pytest.raises(lamina.DivergenceError):
        lamina.train(net, x * 100, y, optimizer=lamina.SGD(3e38), batch_size=97, max_epochs=1)
    assert_same_bits(net.theta, before)


@pytest.mark.parametrize("optimizer", [lamina.AdamW(), lamina.LBFGS()])
def test_a_loss_that_overflows_from_the_start_is_divergence(optimizer):
    net = lamina.Network(D, (), 1, output="exp", dtype="float32", rng=0)
    net.biases[0] = [200.0]
    with pytest.raises(lamina.DivergenceError, match=r"[Ss]tandardise"):
        lamina.train(net, np.zeros((4, D)), np.ones(4), optimizer=optimizer)


def interrupt_after(seconds):
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    return timer


def test_ctrl_c_ends_a_run_soon_with_the_weights_of_the_last_step():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4000, D)), rng.normal(size=(4000, 1))
    net = lamina.Network(D, (64, 64), 1, rng=0)
    before = net.theta
    timer = interrupt_after(0.3)
    began = time.perf_counter()
    with pytest.raises(KeyboardInterrupt) as error:
        lamina.train(net, x, y, max_epochs=10**6, rng=0)
    took = time.perf_counter() - began
    timer.join()
    assert 0.3 <= took < 0.3 + 0.2 + 0.5  # half a second of grace for a busy machine
    assert (net.theta != before).any()
    assert np.isfinite(net.theta).all()
    history = error.value.history
    assert history.stopped == "interrupted"
    assert history.state["epoch"] == history.epochs


@pytest.mark.parametrize("optimizer", [lamina.AdamW(), lamina.LBFGS()])
def test_ctrl_c_between_epochs_leaves_a_history_that_resumes(optimizer):
    x, y = classes()
    net, whole = make(), make()

    def press(report):
        if report.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as error:
        lamina.train(net, x, y, optimizer=optimizer, callbacks=press, max_epochs=6, rng=0)
    history = error.value.history
    assert (history.stopped, history.epochs) == ("interrupted", 3)
    if isinstance(optimizer, lamina.LBFGS):
        return
    lamina.train(whole, x, y, optimizer=optimizer, max_epochs=6, rng=0)
    lamina.train(net, x, y, optimizer=optimizer, max_epochs=6, resume=history)
    assert_same_bits(net.theta, whole.theta)


X, Y = classes()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"net": "net"}, lamina.SpecError),
        ({"x": X[:, :2]}, lamina.ShapeError),
        ({"x": np.where(X > 2, np.nan, X)}, lamina.DataError),
        ({"x": np.empty((0, D)), "y": np.empty(0, int)}, lamina.ShapeError),
        ({"x": X[:1], "y": Y[:1], "validation": 0.5}, lamina.DataError),
        ({"y": Y[:5]}, lamina.ShapeError),
        ({"y": Y + 7}, lamina.DataError),
        ({"y": np.array(["a"] * 97)}, lamina.DataError),
        ({"loss": "hinge"}, lamina.SpecError),
        ({"loss": "poisson"}, lamina.SpecError),
        ({"optimizer": "adam"}, lamina.SpecError),
        ({"batch_size": 0}, lamina.SpecError),
        ({"batch_size": "auto"}, lamina.SpecError),
        ({"max_epochs": 0}, lamina.SpecError),
        ({"max_epochs": 1.5}, lamina.SpecError),
        ({"max_seconds": 0}, lamina.SpecError),
        ({"max_seconds": "1"}, lamina.SpecError),
        ({"validation": 1.0}, lamina.SpecError),
        ({"validation": 0}, lamina.SpecError),
        ({"validation": True}, lamina.SpecError),
        ({"validation": "rest"}, lamina.SpecError),
        ({"validation": (X, Y, Y)}, lamina.SpecError),
        ({"validation": (X[:, :2], Y)}, lamina.ShapeError),
        ({"validation": (X, Y[:3])}, lamina.ShapeError),
        ({"patience": 3}, lamina.SpecError),
        ({"patience": 0, "validation": 0.1}, lamina.SpecError),
        ({"sample_weight": -np.ones(97)}, lamina.DataError),
        ({"sample_weight": np.ones(3)}, lamina.ShapeError),
        ({"precision": "bfloat16"}, lamina.SpecError),
        ({"precision": "float32"}, lamina.SpecError),
        ({"precision": "double"}, lamina.SpecError),
        ({"callbacks": 3}, lamina.SpecError),
        ({"callbacks": [print, None]}, lamina.SpecError),
        ({"rng": "seed"}, lamina.SpecError),
        ({"n_threads": 0}, lamina.SpecError),
        ({"net": make(dropout=0.5), "optimizer": lamina.LBFGS()}, lamina.SpecError),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_a_bad_argument_gives_one_sentence_and_changes_nothing(change, error):
    arguments = {"net": make(), "x": X, "y": Y, "max_epochs": 2} | change
    net = arguments.pop("net")
    before = getattr(net, "theta", None)
    with pytest.raises(error, match=r"^[\w, ]+: expected .*, got .*\. .*\.$") as caught:
        lamina.train(net, arguments.pop("x"), arguments.pop("y"), **arguments)
    assert "\n" not in str(caught.value)
    assert getattr(net, "theta", None) is before


def test_a_precision_that_is_the_dtype_changes_nothing():
    net, twin = make(), make()
    lamina.train(net, X, Y, precision="float64", max_epochs=2, rng=0)
    lamina.train(twin, X, Y, max_epochs=2, rng=0)
    assert_same_bits(net.theta, twin.theta)


def test_training_needs_no_scipy_unless_lbfgs_is_asked_for():
    code = (
        "import sys, lamina, numpy as np\n"
        "net = lamina.Network(2, (3,), 1, rng=0)\n"
        "lamina.train(net, np.ones((4, 2)), np.ones(4), max_epochs=1)\n"
        "assert 'scipy' not in sys.modules\n"
        "lamina.train(net, np.ones((4, 2)), np.ones(4), optimizer=lamina.LBFGS())\n"
        "assert 'scipy' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
