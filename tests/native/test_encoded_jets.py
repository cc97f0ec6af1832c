"""Derivatives of outputs through an encoding, and gradients through them, against PyTorch."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.core.test_encodings import torch_corner_sum
from tests.core.test_reference import torch_forward
from tests.native.test_encodings import grid, make
from tests.native.test_jets import NAMES, engine_jets, torch_jets
from tests.tolerances import assert_same_bits, assert_small, rounding

import lamina
from lamina import Fourier, HashGrid, OneBlob, RandomFourier, _native
from lamina.core.engine import Engine, Run
from lamina.core.losses import SquaredError
from lamina.core.spec import NetworkSpec

GRIDS = {
    "hash linear": grid(n_features=2),
    "hash smoothstep": grid(n_features=2, interpolation="smoothstep"),
    "tiled smoothstep": grid(n_features=3, interpolation="smoothstep", kind="tiled"),
    "many levels": grid(n_levels=17, n_features=4, interpolation="smoothstep", bounds=(-1, 0.5)),
    "dense": grid(
        n_features=1,
        interpolation="smoothstep",
        kind="dense",
        base_resolution=3,
        finest_resolution=9,
    ),
}
WAVES = {
    "fourier": Fourier(3),
    "fourier without x": Fourier(9, include_input=False),
    "random fourier": RandomFourier(21, scale=0.7, rng=0),
    "one blob": OneBlob(7, bounds=(-1.0, 1.5)),
}
KINDS = GRIDS | WAVES
# PyTorch differentiates eight corners of seventeen levels three times over in half a minute.
CASES = [
    pytest.param(d_in, name, marks=[pytest.mark.slow] if (d_in, name) == (3, "many levels") else [])
    for d_in in (1, 2, 3)
    for name in KINDS
]
# Positions inside a cell lose a factor of the resolution, each derivative of them another.
WITHIN = {"float32": rounding(np.float32, 1024), "float64": rounding(np.float64, 65536)}


@pytest.fixture(autouse=True)
def isa_as_before():
    before, threads = _native.isa(), torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    _native.set_isa(before)


def torch_encode(encoding, table, x):
    """h_0 as the papers write it."""
    if isinstance(encoding, HashGrid):
        return torch_corner_sum(encoding, table, x)
    if isinstance(encoding, Fourier):
        octaves = 2.0 ** torch.arange(encoding.n_frequencies, dtype=torch.float64)
        turns = math.pi * octaves * x[:, :, None]
        waves = torch.stack([turns.sin(), turns.cos()], 3).reshape(len(x), -1)
        return torch.cat([x, waves], 1) if encoding.include_input else waves
    if isinstance(encoding, OneBlob):
        low, high = encoding.bounds
        edges = torch.linspace(low, high, encoding.n_bins + 1, dtype=torch.float64)
        sigma = (high - low) / encoding.n_bins
        below = 0.5 * (1 + torch.erf((edges - x[:, :, None]) / (sigma * math.sqrt(2))))
        return (below[:, :, 1:] - below[:, :, :-1]).reshape(len(x), -1)
    turns = 2 * math.pi * x @ torch.tensor(encoding.matrix, dtype=torch.float64).T
    return torch.cat([turns.cos(), turns.sin()], 1)


def torch_network(spec, theta, x):
    table = theta[spec.table_slice].view(spec.table_shape)
    plain = replace(spec, d_in=spec.layer_dims[0], encoding=None)
    return torch_forward(
        plain, theta[: spec.table_slice.start], torch_encode(spec.encoding, table, x)
    )


def draw(spec, x):
    rng = np.random.default_rng(5)
    seeds = [rng.normal(size=(len(x), spec.d_out, *more)) for more in ((), (spec.d_in,), ())]
    return x, rng.normal(size=x.shape), np.linspace(-0.5, 1.5, spec.d_in), seeds


def compare(spec, theta, data, n_threads=2):
    expected = torch_jets(spec, theta.astype(np.float64), *data, forward=torch_network)
    if isinstance(spec.encoding, HashGrid):
        assert np.any(expected[4][spec.table_slice])
    for isa, dtype in itertools.product(_native.isas(), WITHIN):
        _native.set_isa(isa)
        engine = Engine(NetworkSpec.from_json(spec.to_json() | {"dtype": dtype}))
        engine.set_parameters(theta.astype(dtype))
        found = list(engine_jets(engine, *data, n_threads=n_threads))
        pairs = [*zip(NAMES, found, expected, strict=True)]
        if isinstance(spec.encoding, HashGrid):  # the weights must not hide the table
            pairs.append(("table", found[4][spec.table_slice], expected[4][spec.table_slice]))
        for name, ours, theirs in pairs:
            scale = float(np.abs(theirs).max())
            assert_small(ours - theirs, scale, WITHIN[dtype], f"{name}, {isa}, {dtype}")
            assert theirs.any() == ours.any(), name


@pytest.mark.parametrize(("d_in", "name"), CASES)
def test_derivatives_and_their_gradients_match_pytorch_on_every_isa(d_in, name):
    spec, theta, x, _ = make(KINDS[name], d_in, widths=(9, 9), residual=True)
    compare(spec, theta.astype(np.float32), draw(spec, x[:33]))


@pytest.mark.parametrize("name", ["hash smoothstep", "random fourier"])
@pytest.mark.parametrize("activation", ["sine", "softplus", "silu", "gelu", "mish", "sigmoid"])
def test_they_follow_activations_and_skips(activation, name):
    spec, theta, x, _ = make(KINDS[name], 2, widths=(17, 17, 8))
    more = {"activation": activation, "skips": {2: (0,), 4: (0, 2)}, "output": "sigmoid"}
    spec = NetworkSpec.create(
        2, spec.widths, 3, encoding=spec.encoding, residual=True, dtype="float64", **more
    )
    theta = np.random.default_rng(0).normal(0, 0.3, spec.n_params)
    compare(spec, theta.astype(np.float32), draw(spec, x[:20]))


def test_wide_inputs_travel_in_groups():
    spec, theta, x, _ = make(RandomFourier(9, scale=0.2, rng=0), 19)
    compare(spec, theta.astype(np.float32), draw(spec, x[:9]))


@pytest.mark.parametrize("name", ["hash smoothstep", "fourier", "one blob"])
def test_a_row_does_not_depend_on_its_batch_and_a_table_not_on_threads(name):
    spec, theta, x, _ = make(KINDS[name], 3, "float32", widths=(40, 40))
    engine = Engine(spec)
    engine.set_parameters(theta)
    x = np.tile(x, (4, 1))
    data = draw(spec, x)
    whole = engine_jets(engine, *data, n_threads=3)
    for rows in (slice(0, 1), slice(5, 22), slice(399, 700)):
        x_r, v, coefficients, seeds = data
        part = engine_jets(engine, x_r[rows], v[rows], coefficients, [s[rows] for s in seeds], 1)
        for ours, theirs in zip(part[:4], whole[:4], strict=True):
            assert_same_bits(ours, theirs[rows])
    again = engine_jets(engine, *data, n_threads=1)
    assert_same_bits(again[4][spec.table_slice], whole[4][spec.table_slice])


def test_more_rows_than_a_window_of_the_table():
    spec, theta, x, _ = make(KINDS["hash smoothstep"], 2, widths=(4,))
    engine = Engine(spec)
    engine.set_parameters(theta)
    x = np.tile(x, (1000, 1))
    assert len(x) * spec.layer_dims[0] * 3 > 1 << 22
    grads = []
    for rows in (x, x[: len(x) // 1000]):
        y = np.zeros((len(rows), 3))
        grad = np.empty(spec.n_params)
        engine.evaluate(rows, y, lamina.Eikonal(0.5), grad=grad, n_threads=2)
        grads.append(grad)
    assert_small(grads[0] - grads[1], np.abs(grads[1]).max(), rounding(np.float64, len(x)))


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_step_on_a_given_gradient_is_the_step_of_training_the_table_too(optimizer):
    spec, theta, x, y = make(KINDS["hash linear"], 2)
    found = []
    for given in (False, True):
        engine = Engine(spec)
        engine.set_parameters(theta)
        run = Run(engine, SquaredError(), optimizer, {}, batch_size=len(x), seed=0, n_threads=1)
        for _ in range(3):
            if given:
                grad = np.empty(spec.n_params)
                engine.evaluate(x, y, SquaredError(), grad=grad)
                run.apply(grad, 0.01)
            else:
                run.epochs(x, y, np.array([0.01]), first_epoch=0, n_epochs=1, shuffle=False)
        found.append((engine.get_parameters(), *run.get_state(), engine.forward(x)))
    for ours, theirs in zip(*found, strict=True):
        assert_small(ours - theirs, 1.0, rounding(np.float64, 256), optimizer)
    assert np.any(found[1][0][spec.table_slice] != theta[spec.table_slice])
