"""Eikonal and Sobolev against PyTorch's double backward, and what they are for."""

import itertools

import numpy as np
import pytest
import torch
from tests.core.test_reference import make_spec, make_theta, torch_forward
from tests.tolerances import (
    assert_close,
    assert_small,
    difference_step,
    finite_difference,
    rounding,
)

import lamina
from lamina import _native

N, D = 9, 4
KINDS = [
    lamina.Eikonal(0.3),
    lamina.Eikonal(0.3, normals=0.7, value_loss="absolute_error"),
    lamina.Sobolev(0.4),
    lamina.Sobolev(0.4, "absolute_error"),
]


def draw(loss, n=N, d_in=D, d_out=D):
    rng = np.random.default_rng(3)
    y, g = rng.normal(size=(n, d_out)), rng.normal(size=(n, d_out, d_in))
    y[::3, 0] = np.nan
    g[1::3, -1, 0] = np.nan
    x, weight = rng.normal(size=(n, d_in)), rng.uniform(0.1, 2.0, n)
    return x, (y, g) if loss.has_gradients() else y, weight


def torch_value(spec, theta, x, y, weight, loss):
    values, given = y if loss.has_gradients() else (y, None)
    f = torch_forward(spec, theta, x)
    outputs = range(f.shape[1])
    grad = torch.stack(
        [torch.autograd.grad(f[:, o].sum(), x, create_graph=True)[0] for o in outputs], 1
    )
    e = torch.nan_to_num(f - torch.tensor(values))
    total = e.abs() if loss.value_loss == "absolute_error" else e**2
    if given is not None:
        match = loss.normals if loss.name == "eikonal" else loss.weight
        total = total + match * (torch.nan_to_num(grad - torch.tensor(given)) ** 2).sum(2)
    if loss.name == "eikonal":
        total = total + loss.weight * (grad.norm(dim=2) - 1) ** 2
    w = torch.tensor(weight)
    return (w * total.mean(1)).sum() / w.sum()


@pytest.mark.parametrize("output", ["identity", "softmax"])
@pytest.mark.parametrize("loss", KINDS, ids=str)
def test_value_and_gradients_match_pytorch(loss, output):
    before = _native.isa()
    for activation, isa in itertools.product(["sine", "relu", "softplus"], _native.isas()):
        _native.set_isa(isa)
        spec = make_spec(activation, output, "both")
        theta, (x, y, weight) = 1.5 * make_theta(spec), draw(loss)
        t, tx = torch.tensor(theta, requires_grad=True), torch.tensor(x, requires_grad=True)
        value = torch_value(spec, t, tx, y, weight, loss)
        grad, grad_x = torch.autograd.grad(value, (t, tx))
        net = lamina.Network.from_spec(spec, theta)
        ours = net.gradients(x, y, loss, weight)
        assert_close(ours.loss, value.item(), rounding(np.float64, 64))
        assert_close(net.loss(x, y, loss, weight), ours.loss, rounding(np.float64))
        pairs = zip(ours.weights, ours.biases, strict=True)
        flat = np.concatenate([a.ravel() for pair in pairs for a in pair])
        assert_close(flat, grad.numpy(), rounding(np.float64, 256))
        assert_close(ours.x, grad_x.numpy(), rounding(np.float64, 256))
    _native.set_isa(before)


@pytest.mark.parametrize("loss", KINDS, ids=str)
def test_a_step_of_training_is_a_step_along_that_gradient(loss):
    spec = make_spec("tanh")
    x, y, weight = draw(loss, n=70)
    net = lamina.Network.from_spec(spec, make_theta(spec))
    g = net.gradients(x, y, loss, weight)
    expected = [w - 0.1 * d for w, d in zip(net.weights, g.weights, strict=True)]
    history = lamina.train(
        net,
        x,
        y,
        loss=loss,
        sample_weight=weight,
        optimizer=lamina.SGD(0.1, momentum=0.0),
        batch_size=70,
        max_epochs=1,
        rng=0,
        n_threads=2,
    )
    assert_close(history.train_loss[0], g.loss, rounding(np.float64, 64))
    for ours, theirs in zip(net.weights, expected, strict=True):
        assert_small(ours - theirs, 1.0, rounding(np.float64, 256))


def test_the_signed_distance_of_a_circle_from_points_on_it():
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 512)
    surface = 0.5 * np.stack([np.cos(angle), np.sin(angle)], 1)
    x = np.concatenate([surface, rng.uniform(-1, 1, (512, 2))])
    y = np.concatenate([np.zeros(512), np.full(512, np.nan)])
    normals = np.concatenate([2 * surface, np.full((512, 2), np.nan)])
    net = lamina.Network(2, (64, 64), 1, activation="silu", rng=0)
    loss = lamina.Eikonal(0.1, normals=0.1)
    lamina.train(
        net, x, (y, normals), loss=loss, optimizer=lamina.Adam(3e-3), max_epochs=150,
        batch_size=128, rng=0,
    )  # fmt: skip
    probe = rng.uniform(-0.9, 0.9, (400, 2))
    radius = np.linalg.norm(probe, axis=1)
    probe, radius = probe[radius > 0.1], radius[radius > 0.1]  # the distance has a kink at 0
    assert np.abs(net(probe)[:, 0] - (radius - 0.5)).mean() < 0.02
    assert np.abs(np.linalg.norm(net.jacobian(probe)[:, 0], axis=1) - 1).mean() < 0.1


ENCODED = {
    "grid": lamina.HashGrid(4, 2, 10, 4, 24, interpolation="smoothstep", bounds=(-1.0, 1.0)),
    "linear": lamina.HashGrid(2, 3, 6, 4, 9, bounds=(-3.0, 3.0)),
    "fourier": lamina.Fourier(2),
    "random": lamina.RandomFourier(16, scale=0.5, rng=0),
    "blob": lamina.OneBlob(8),
}


@pytest.mark.parametrize("loss", KINDS[1:3], ids=str)
@pytest.mark.parametrize("name", ENCODED)
def test_through_an_encoding_the_gradient_is_a_difference_and_a_step_goes_along_it(name, loss):
    net = lamina.Network(
        2, (17,), 3, activation="silu", encoding=ENCODED[name], dtype="float64", rng=0
    )
    theta = np.random.default_rng(1).normal(0, 0.5, net.n_params)
    net.theta = theta
    x, y, weight = draw(loss, 70, 2, 3)
    x /= 3
    g = net.gradients(x, y, loss, weight)
    pairs = zip(g.weights, g.biases, strict=True)
    flat = np.concatenate([a.ravel() for pair in pairs for a in pair])
    if g.table is not None:
        flat = np.concatenate([flat, g.table.ravel()])
    step, rng = difference_step(), np.random.default_rng(2)
    table = net.spec.table_slice
    chosen = [*rng.choice(table.start, 40, False)]
    if g.table is not None:
        reached = table.start + np.flatnonzero(g.table.ravel())
        chosen += [*rng.choice(reached, 40, False)]
    differences = []
    for i in chosen:
        ends = []
        for sign in (1, -1):
            moved = theta.copy()
            moved[i] += sign * step
            net.theta = moved
            ends.append(net.loss(x, y, loss, weight))
        differences.append((ends[0] - ends[1]) / (2 * step))
    assert_close(flat[chosen], differences, finite_difference(64))
    net.theta = theta
    if name != "linear":
        by_x = []
        for s in step * np.eye(2):
            values = [
                [net.loss(x[i : i + 1] + t, _row(y, i), loss) for t in (s, -s)] for i in range(9)
            ]
            by_x.append([(a - b) / (2 * step) for a, b in values])
        rows = [net.gradients(x[i : i + 1], _row(y, i), loss).x[0] for i in range(9)]
        assert_close(rows, np.transpose(by_x), finite_difference(64))
    sgd = lamina.SGD(0.1, momentum=0.0)
    lamina.train(
        net, x, y, loss=loss, sample_weight=weight, optimizer=sgd, batch_size=70, max_epochs=1,
        rng=0, n_threads=2,
    )  # fmt: skip
    assert_small(net.theta - (theta - 0.1 * flat), 1.0, rounding(np.float64, 256))
    assert np.any(net.theta != theta)


def _row(y, i):
    return tuple(a[i : i + 1] for a in y) if isinstance(y, tuple) else y[i : i + 1]


@pytest.mark.parametrize("d_in", [2, 3])
def test_a_distance_in_a_grid_that_must_have_slope_one_has_less_wrong_slopes(d_in):
    rng = np.random.default_rng(0)
    n_known, n = (256, 1280) if d_in == 2 else (1024, 5120)
    x = rng.uniform(-1, 1, (n, d_in))
    y = np.linalg.norm(x, axis=1) - 0.5  # of a circle, or a sphere
    y[n_known:] = np.nan
    probe = rng.uniform(-0.8, 0.8, (500, d_in))
    radius = np.linalg.norm(probe, axis=1)
    probe, radius = probe[radius > 0.15], radius[radius > 0.15]  # the distance has a kink at 0
    grid = lamina.HashGrid(4, 2, 13, 4, 16, interpolation="smoothstep", bounds=(-1.0, 1.0))

    def errors(net):
        slope = np.linalg.norm(net.jacobian(probe)[:, 0], axis=1)
        return np.abs(slope - 1).mean(), np.abs(net(probe)[:, 0] - (radius - 0.5)).mean()

    slopes = []
    for weight in (0.0, 0.01):
        net = lamina.Network(d_in, (32, 32), 1, activation="silu", encoding=grid, rng=0)
        table = net.table.copy()
        assert errors(net)[0] > 0.9
        adam = lamina.Adam(lamina.cosine(1e-2))
        lamina.train(
            net, x, y, loss=lamina.Eikonal(weight), optimizer=adam, max_epochs=200,
            batch_size=128, rng=0,
        )  # fmt: skip
        slope, value = errors(net)
        slopes.append(slope)
        assert value < 0.01
        assert np.any(net.table != table)
    assert slopes[1] < 0.06
    assert slopes[1] < 0.8 * slopes[0]


def test_validation_patience_resume_and_lbfgs_work_with_them():
    loss = lamina.Sobolev()
    x = np.linspace(-1, 1, 64)[:, None]
    y = (np.sin(3 * x), 3 * np.cos(3 * x))
    kind = {"loss": loss, "validation": 0.25, "patience": 50, "batch_size": 16, "rng": 0}

    def fresh():
        return lamina.Network(1, (16,), 1, activation="tanh", dtype="float64", rng=0)

    whole, cut = fresh(), fresh()
    lamina.train(whole, x, y, max_epochs=6, **kind)
    first = lamina.train(cut, x, y, max_epochs=3, **kind)
    lamina.train(cut, x, y, max_epochs=6, resume=first, **kind)
    assert np.array_equal(whole.theta, cut.theta)
    net = fresh()
    before = net.loss(x, y, loss)
    lamina.train(net, x, y, loss=loss, optimizer=lamina.LBFGS(), max_epochs=60)
    assert net.loss(x, y, loss) < 0.05 * before


def test_what_cannot_be_is_refused_in_a_sentence():
    x, y = np.zeros((3, 2)), np.zeros(3)
    net = lamina.Network(2, (4,), 1, activation="tanh", rng=0)
    with pytest.raises(lamina.ShapeError, match=r"expected y of shape \(3, 3\), got \(3,\)"):
        net.loss(x, y, lamina.Sobolev())
    with pytest.raises(lamina.ShapeError, match="expected gradients of shape"):
        net.loss(x, (y, np.zeros((3, 5))), lamina.Sobolev())
    with pytest.raises(lamina.DataError, match="got infinity"):
        net.loss(x, y + np.inf, lamina.Eikonal())
    with pytest.raises(lamina.SpecError, match="with a slope"):
        lamina.Network(2, (4,), 1, activation="step", rng=0).loss(x, y, lamina.Eikonal())
    dropped = lamina.Network(2, (4,), 1, activation="tanh", dropout=0.5, rng=0)
    with pytest.raises(lamina.SpecError, match="expected dropout 0"):
        lamina.train(dropped, x, y, loss=lamina.Eikonal())
    with pytest.raises(lamina.SpecError, match=r"expected (precision|a processor)"):
        lamina.train(net, x, y, loss=lamina.Eikonal(), precision="bfloat16")
    for wrong in ({"weight": -1.0}, {"normals": np.nan}, {"value_loss": "huber"}):
        with pytest.raises(lamina.SpecError, match="Eikonal"):
            lamina.Eikonal(**wrong)
