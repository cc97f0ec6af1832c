"""train: against PyTorch; held-out rows and weights."""

import numpy as np
import pytest
import torch
from tests.core.small_runs import classes, make, numbers
from tests.tolerances import assert_close, assert_same_bits, rounding

import lamina
from lamina.core.watch import Rows, hold_out

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
