"""JetLoss: a loss of the caller's own, of values and derivatives of the outputs."""

import numpy as np
import pytest
import torch
from tests.core.test_reference import make_spec, make_theta, torch_forward
from tests.tolerances import assert_close, rounding

import lamina

GRID = lamina.HashGrid(3, 2, 8, 3, 12, interpolation="smoothstep", bounds=(-1.0, 4.0))


def residual(x, y, values, jacobian, curvature):
    """(u'' + sin x)^2 inside, u^2 where y is 1."""
    inside = 1 - y
    r, b = inside * (curvature + np.sin(x)), y * values
    return (r**2 + b**2)[:, 0], 2 * y * b, None, 2 * inside * r


def mixed(x, y, values, jacobian, curvature):
    """Everything times everything: sum_o (u - y)^2 + u_0 |J|^2 + q^2."""
    squares = (jacobian**2).sum((1, 2))
    loss = ((values - y) ** 2).sum(1) + values[:, 0] * squares + (curvature**2).sum(1)
    d_values = 2 * (values - y)
    d_values[:, 0] += squares
    return loss, d_values, 2 * values[:, :1, None] * jacobian, 2 * curvature


def poisson():
    x = np.linspace(0, np.pi, 65)[:, None]
    return x, ((x == 0) | (x == np.pi)).astype(float)


def test_value_and_gradients_match_pytorch():
    spec = make_spec("softplus", "sigmoid", "both")
    c = np.linspace(-0.5, 1.5, spec.d_in)
    rng = np.random.default_rng(0)
    theta, x, y = 1.5 * make_theta(spec), rng.normal(size=(9, spec.d_in)), rng.normal(size=(9, 4))
    y, weight = y[:, : spec.d_out], rng.uniform(0.1, 2, 9)
    assert y.shape[1] == spec.d_out
    t, tx = torch.tensor(theta, requires_grad=True), torch.tensor(x, requires_grad=True)
    f = torch_forward(spec, t, tx)

    def by_x(a):
        return torch.autograd.grad(a.sum(), tx, create_graph=True)[0]

    jacobian = torch.stack([by_x(f[:, o]) for o in range(spec.d_out)], 1)
    axes, outputs = range(spec.d_in), range(spec.d_out)
    bent = [sum(c[j] * by_x(jacobian[:, o, j])[:, j] for j in axes) for o in outputs]
    rows = ((f - torch.tensor(y)) ** 2).sum(1) + f[:, 0] * (jacobian**2).sum((1, 2))
    rows = rows + (torch.stack(bent, 1) ** 2).sum(1)
    value = (torch.tensor(weight) * rows).sum() / weight.sum()
    grad, grad_x = torch.autograd.grad(value, (t, tx))
    net, loss = lamina.Network.from_spec(spec, theta), lamina.JetLoss(mixed, tuple(c))
    ours = net.gradients(x, y, loss, weight)
    assert_close(ours.loss, value.item(), rounding(np.float64, 64))
    assert_close(net.loss(x, y, loss, weight), value.item(), rounding(np.float64, 64))
    pairs = zip(ours.weights, ours.biases, strict=True)
    flat = np.concatenate([a.ravel() for pair in pairs for a in pair])
    assert_close(flat, grad.numpy(), rounding(np.float64, 256))
    assert_close(ours.x, grad_x.numpy(), rounding(np.float64, 256))


@pytest.mark.parametrize("encoding", [None, lamina.OneBlob(6, bounds=(-0.5, 3.7))], ids=str)
def test_the_poisson_equation_is_solved(encoding):
    x, y = poisson()
    net = lamina.Network(
        1, (24, 24), 1, activation="tanh", encoding=encoding, dtype="float64", rng=0
    )
    loss = lamina.JetLoss(residual, curvature=True)
    before = np.abs(net(x) - np.sin(x)).max()
    lamina.train(net, x, y, loss=loss, optimizer=lamina.LBFGS(), max_epochs=400)
    error = np.abs(net(x) - np.sin(x)).max()
    assert before > 0.3
    assert error < 0.01


def test_the_equation_is_solved_by_adam_in_float32_too():
    x, y = poisson()
    net = lamina.Network(1, (24, 24), 1, activation="tanh", rng=0)
    loss = lamina.JetLoss(residual, curvature=True)
    adam = lamina.Adam(lamina.cosine(1e-2))
    history = lamina.train(
        net, x, y, loss=loss, optimizer=adam, batch_size=65, max_epochs=600, rng=0
    )
    assert history.train_loss[-1] < 1e-3 * history.train_loss[0]
    assert np.abs(net(x) - np.sin(x)).max() < 0.03


@pytest.mark.parametrize("d_in", [1, 2])
def test_a_loss_that_the_engine_knows_gives_what_the_engine_gives(d_in):
    def sobolev(x, y, values, jacobian, curvature):
        assert curvature is None
        e, slope = values - y[:, :1], jacobian - y[:, None, 1:]
        loss = e**2 + 0.3 * (slope**2).sum(2)
        return loss[:, 0], 2 * e, 0.6 * slope, None

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, d_in)), rng.normal(size=(50, 1 + d_in))
    nets = [
        lamina.Network(d_in, (9,), 1, activation="silu", encoding=GRID, dtype="float64", rng=0)
        for _ in range(2)
    ]
    for net, loss in zip(nets, (lamina.Sobolev(0.3), lamina.JetLoss(sobolev)), strict=True):
        adam = lamina.AdamW(1e-2, weight_decay=0.1)
        history = lamina.train(
            net, x, y, loss=loss, optimizer=adam, batch_size=50, max_epochs=5, rng=0
        )
        assert history.epochs == 5
    assert_close(nets[1].theta, nets[0].theta, rounding(np.float64, 4096))


def test_validation_patience_and_resume_work_with_it():
    x, y = poisson()
    loss = lamina.JetLoss(residual, curvature=True)
    kind = {"loss": loss, "validation": 0.25, "patience": 50, "batch_size": 16, "rng": 0}

    def fresh():
        return lamina.Network(1, (16,), 1, activation="tanh", dtype="float64", rng=0)

    whole, cut = fresh(), fresh()
    lamina.train(whole, x, y, max_epochs=6, **kind)
    first = lamina.train(cut, x, y, max_epochs=3, **kind)
    history = lamina.train(cut, x, y, max_epochs=6, resume=first, **kind)
    assert np.array_equal(whole.theta, cut.theta)
    assert len(history.validation_loss) == 6
    assert history.validation_score[-1] == -history.validation_loss[-1]


def test_no_target_is_a_target_and_the_rows_cannot_be_written_to():
    def flat(x, y, values, jacobian, curvature):
        assert y.shape == (len(x), 0)
        for a in (x, y):
            assert not a.flags.writeable
        return (jacobian**2).sum((1, 2)), None, 2 * jacobian, None

    x = np.random.default_rng(0).normal(size=(40, 2))
    net = lamina.Network(2, (8,), 1, activation="tanh", rng=0)
    before = net.loss(x, None, lamina.JetLoss(flat))
    lamina.train(net, x, None, loss=lamina.JetLoss(flat), max_epochs=30, rng=0)
    assert net.loss(x, None, lamina.JetLoss(flat)) < before


def test_an_exception_ends_training_after_a_whole_step():
    x, y = poisson()
    calls = []

    def fails(*data):
        calls.append(1)
        if len(calls) == 4:
            raise ZeroDivisionError("mine")
        return residual(*data)

    def fresh():
        return lamina.Network(1, (16,), 1, activation="tanh", dtype="float64", rng=0)

    net, twin = fresh(), fresh()
    kind = {"batch_size": 65, "rng": 0}
    with pytest.raises(ZeroDivisionError, match="mine"):
        lamina.train(net, x, y, loss=lamina.JetLoss(fails, True), max_epochs=9, **kind)
    lamina.train(twin, x, y, loss=lamina.JetLoss(residual, True), max_epochs=3, **kind)
    assert np.array_equal(net.theta, twin.theta)


def test_a_loss_that_explodes_is_divergence():
    x, y = poisson()
    net = lamina.Network(1, (16,), 1, activation="softplus", rng=0)
    sgd = lamina.SGD(1e6, momentum=0.0)
    with pytest.raises(lamina.DivergenceError):
        lamina.train(
            net, x, y, loss=lamina.JetLoss(residual, True), optimizer=sgd, max_epochs=50, rng=0
        )
    assert np.isfinite(net.theta).all()


def part(place, value):
    def wrong(*data):
        results = list(residual(*data))
        results[place] = value(data)
        return tuple(results)

    return wrong


WRONG = {
    "three results": (lambda *d: residual(*d)[:3], True, lamina.ShapeError, "four results"),
    "no tuple": (lambda *d: residual(*d)[0], True, lamina.ShapeError, "four results"),
    "a mean": (part(0, lambda d: 1.0), True, lamina.ShapeError, r"loss of shape \(65,\), got \(\)"),
    "turned": (part(1, lambda d: d[2].T), True, lamina.ShapeError, "d_values of shape"),
    "NaN": (part(1, lambda d: d[2] * np.nan), True, lamina.DataError, "finite numbers in d_values"),
    "words": (part(1, lambda d: [["a"]] * 65), True, lamina.DataError, "array of real numbers"),
    "no curvature": (
        lambda x, y, u, j, q: (u[:, 0], None, None, u), False, lamina.ShapeError, "without curv",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_the_function_returns_is_checked(name):
    function, curvature, error, words = WRONG[name]
    x, y = poisson()
    net = lamina.Network(1, (8,), 1, activation="tanh", rng=0)
    before = net.theta
    with pytest.raises(error, match=words) as caught:
        lamina.train(net, x, y, loss=lamina.JetLoss(function, curvature), max_epochs=2, rng=0)
    assert str(caught.value).startswith("JetLoss(")
    assert "\n" not in str(caught.value)
    assert np.array_equal(net.theta, before)


def test_what_cannot_be_is_refused_in_a_sentence():
    x, y = poisson()
    loss = lamina.JetLoss(residual, curvature=True)
    net = lamina.Network(1, (8,), 1, activation="tanh", rng=0)
    with pytest.raises(lamina.SpecError, match=r"JetLoss: expected function to be callable"):
        lamina.JetLoss("square")
    with pytest.raises(lamina.ShapeError, match=r"expected weights of shape \(1,\)"):
        net.loss(x, y, lamina.JetLoss(residual, (1.0, 2.0)))
    with pytest.raises(lamina.ShapeError, match=r"expected y of shape"):
        net.loss(x, y[:3], loss)
    with pytest.raises(lamina.DataError, match="got infinity"):
        net.loss(x, y + np.inf, loss)
    for kind in ({"activation": "relu"}, {"encoding": lamina.HashGrid(2, 2, 6, 3, 9)}):
        with pytest.raises(lamina.SpecError, match="expected"):
            lamina.Network(1, (8,), 1, **({"activation": "tanh"} | kind), rng=0).loss(x, y, loss)
    dropped = lamina.Network(1, (4,), 1, activation="tanh", dropout=0.5, rng=0)
    with pytest.raises(lamina.SpecError, match="expected dropout 0"):
        lamina.train(dropped, x, y, loss=loss)
    with pytest.raises(lamina.SpecError, match=r"Call lamina\.train for each"):
        lamina.train_many(
            [net, lamina.Network(1, (8,), 1, activation="tanh", rng=1)], x, loss=loss, y=y
        )
