"""Derivatives of outputs by inputs, and gradients through them, against PyTorch on every ISA."""

import itertools

import numpy as np
import pytest
import torch
from tests.core.test_reference import (
    D_IN,
    D_OUT,
    TORCH_ACTIVATION,
    TORCH_OUTPUT,
    make_spec,
    make_theta,
    torch_forward,
)
from tests.tolerances import assert_same_bits, assert_small, rounding

from lamina import _native
from lamina.core.engine import Engine
from lamina.core.spec import NetworkSpec

ISAS = _native.isas()
N = 7
TOLERANCE = {"float32": rounding(np.float32, 32), "float64": rounding(np.float64, 64)}


@pytest.fixture(autouse=True)
def isa_as_before():
    before, threads = _native.isa(), torch.get_num_threads()
    torch.set_num_threads(1)  # its teams would wait for one another over a few numbers
    yield
    torch.set_num_threads(threads)
    _native.set_isa(before)


def torch_jets(spec, theta, x, v, coefficients, seeds, forward=torch_forward):
    """Everything by autograd, three times over where it must be; zeros where nothing depends."""
    theta, x = (torch.tensor(a, requires_grad=True) for a in (theta, x))
    nothing = 0.0 * ((x**3).sum() + (theta**3).sum())  # so that each derivative has a graph

    def by_x(a):  # (n,) -> (n, d_in)
        return torch.autograd.grad(a.sum() + nothing, x, create_graph=True)[0]

    y = forward(spec, theta, x)
    n_out, n_in = y.shape[1], x.shape[1]
    jacobian = torch.stack([by_x(y[:, o]) for o in range(n_out)], 1)
    rows = [torch.stack([by_x(jacobian[:, o, j]) for j in range(n_in)], 1) for o in range(n_out)]
    hessian = torch.stack(rows, 1)  # (n, d_out, d_in, d_in)
    product = torch.einsum("noij,nj->noi", hessian, torch.tensor(v))
    diagonal = torch.diagonal(hessian, dim1=2, dim2=3)
    curvature = diagonal @ torch.tensor(coefficients)
    parts = (y, jacobian, curvature)
    loss = nothing + sum((a * torch.tensor(s)).sum() for a, s in zip(parts, seeds, strict=True))
    found = (*parts, product, *torch.autograd.grad(loss, (theta, x)))
    return [a.detach().numpy() for a in found]


def engine_jets(engine, x, v, coefficients, seeds, n_threads=2):
    n, spec = len(x), engine.spec
    shapes = [(n, spec.d_out), (n, spec.d_out, spec.d_in), (n, spec.d_out)]
    values, jacobian, curvature = (np.empty(shape, engine.dtype) for shape in shapes)
    kind = {"coefficients": coefficients, "n_threads": n_threads}
    engine.jet(x, values=values, jacobian=jacobian, curvature=curvature, **kind)
    grad, grad_x = np.empty(spec.n_params, engine.dtype), np.empty((n, spec.d_in), engine.dtype)
    named = dict(zip(("d_values", "d_jacobian", "d_curvature"), seeds, strict=True))
    engine.jet_backward(x, grad=grad, grad_x=grad_x, **named, **kind)
    return values, jacobian, curvature, engine.hessian_vector(x, v, n_threads), grad, grad_x


def draw(spec, n, seed=5):
    rng = np.random.default_rng(seed)
    x, v = rng.normal(size=(2, n, spec.d_in))
    seeds = [rng.normal(size=(n, spec.d_out, *more)) for more in ((), (spec.d_in,), ())]
    exact = [a.astype(np.float32).astype(np.float64) for a in (x, v, *seeds)]
    return exact[0], exact[1], np.linspace(-0.5, 1.5, spec.d_in), exact[2:]


NAMES = ("values", "jacobian", "curvature", "Hessian-vector", "grad", "grad_x")


def compare(spec, theta, n=N, n_threads=2):
    theta = theta.astype(np.float32).astype(np.float64)
    data = draw(spec, n)
    expected = torch_jets(spec, theta, *data)
    for isa, dtype in itertools.product(ISAS, TOLERANCE):
        _native.set_isa(isa)
        engine = Engine(NetworkSpec.from_json(spec.to_json() | {"dtype": dtype}))
        engine.set_parameters(theta.astype(dtype))
        found = engine_jets(engine, *data, n_threads=n_threads)
        for name, ours, theirs in zip(NAMES, found, expected, strict=True):
            scale = max(float(np.abs(theirs).max()), 0.01)
            assert_small(ours - theirs, scale, TOLERANCE[dtype], f"{name}, {isa}, {dtype}")
            if "step" not in spec.activations and spec.output != "step" and theirs.any():
                assert ours.any(), name


@pytest.mark.parametrize("output", [o for o in TORCH_OUTPUT if o != "step"])
@pytest.mark.parametrize("activation", TORCH_ACTIVATION)
def test_derivatives_and_their_gradients_match_pytorch_on_every_isa(activation, output):
    spec = make_spec(activation, output, "both")
    compare(spec, 1.5 * make_theta(spec))


@pytest.mark.parametrize("graph", ["plain", "skips", "residual"])
def test_they_follow_skips_and_residuals(graph):
    spec = make_spec("softplus", "sigmoid", graph)
    compare(spec, 1.5 * make_theta(spec))


SHAPES = [  # (d_in, widths, d_out, rows): wide inputs in groups, many outputs, several blocks
    (19, (33, 9), 2, 9),
    (2, (65, 65), 35, 17),
    (1, (16,), 1, 150),
    (3, (), 3, 8),
    (20, (8,), 21, 5),
    (3, (64, 63), 1, 1),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_awkward_sizes(shape):
    d_in, widths, d_out, n = shape
    spec = NetworkSpec.create(d_in, widths, d_out, activation="tanh", dtype="float64")
    theta = np.random.default_rng(0).normal(0, 0.3, spec.n_params)
    compare(spec, theta, n)


def test_tails_stay_finite_and_flat():
    for isa, dtype, name in itertools.product(ISAS, TOLERANCE, TORCH_ACTIVATION):
        _native.set_isa(isa)
        engine = Engine(NetworkSpec.create(1, (1,), 1, activation=name, dtype=dtype))
        engine.set_parameters(np.array([1.0, 0.0, 1.0, 0.0], dtype))
        x = np.array([[-1e4], [-200.0], [-40.0], [40.0], [200.0], [1e4]], dtype)
        _, jacobian, curvature, product, _, _ = engine_jets(
            engine, x, np.ones_like(x), np.ones(1), [np.ones_like(x), None, np.ones_like(x)]
        )
        for a in (jacobian, curvature, product):
            assert np.isfinite(a).all(), (isa, dtype, name)
        if name not in ("sine", "squared_relu"):
            assert np.abs(curvature).max() < 1e-12, (isa, dtype, name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_rows_derivatives_do_not_depend_on_its_batch_or_on_threads(dtype):
    spec = NetworkSpec.create(3, (70, 40), 4, activation="silu", output="softmax", dtype=dtype)
    engine = Engine(spec)
    engine.set_parameters(np.random.default_rng(0).normal(0, 0.3, spec.n_params).astype(dtype))
    x, v, coefficients, seeds = draw(spec, 700)
    whole = engine_jets(engine, x, v, coefficients, seeds, n_threads=3)
    for rows in (slice(0, 1), slice(5, 22), slice(399, 700)):
        part = engine_jets(
            engine, x[rows], v[rows], coefficients, [s[rows] for s in seeds], n_threads=1
        )
        for ours, theirs in zip(part[:4], whole[:4], strict=True):
            assert_same_bits(ours, theirs[rows])


def test_no_rows_are_no_work():
    engine = Engine(make_spec("tanh"))
    engine.set_parameters(make_theta(engine.spec))
    x, v, coefficients, seeds = draw(engine.spec, 0)
    *outputs, grad, _ = engine_jets(engine, x, v, coefficients, seeds)
    assert [len(a) for a in outputs] == [0] * 4
    assert not grad.any()


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_step_on_a_given_gradient_is_the_step_of_training(optimizer):
    from lamina.core.engine import Run
    from lamina.core.losses import SquaredError

    spec = NetworkSpec.create(5, (40, 33), 2, activation="tanh", dtype="float64")
    theta = np.random.default_rng(0).normal(0, 0.3, spec.n_params)
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(30, 5)), rng.normal(size=(30, 2))
    hyper = {"weight_decay": 0.1, "l2": 0.01}
    found = []
    for given in (False, True):
        engine = Engine(spec)
        engine.set_parameters(theta)
        run = Run(engine, SquaredError(), optimizer, hyper, batch_size=30, seed=0, n_threads=1)
        for _ in range(3):
            if given:
                grad = np.empty(spec.n_params)
                engine.evaluate(x, y, SquaredError(), grad=grad)
                run.apply(grad, 0.01)
            else:
                run.epochs(x, y, np.array([0.01]), first_epoch=0, n_epochs=1, shuffle=False)
        assert run.step == 3
        found.append((engine.get_parameters(), *run.get_state(), engine.forward(x)))
    for ours, theirs in zip(*found, strict=True):
        assert_small(ours - theirs, 1.0, rounding(np.float64, 256), optimizer)
    assert np.any(found[0][0] != theta)


def test_wrong_shapes_are_refused_at_the_door():
    engine = Engine(make_spec("tanh"))
    native, x = engine.native, np.zeros((3, D_IN))
    for kind in ({"jacobian": np.zeros((3, D_OUT, 1))}, {"values": np.zeros((2, D_OUT))}):
        arguments = {"coefficients": None, "values": None, "jacobian": None, "curvature": None}
        with pytest.raises(ValueError, match="wrong shape"):
            native.jet(x, **(arguments | kind), n_threads=1)
    with pytest.raises(ValueError, match="needs its coefficients"):
        engine.jet(x, curvature=np.zeros((3, D_OUT)))
    with pytest.raises(ValueError, match="wrong number of rows"):
        engine.hessian_vector(x, np.zeros((2, D_IN)))
