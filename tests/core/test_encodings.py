"""Encodings as configurations, and their slow twin against PyTorch and finite differences."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from tests.tolerances import (
    assert_close,
    assert_small,
    difference_step,
    finite_difference,
    rounding,
)

import lamina
from lamina import Fourier, HashGrid, OneBlob, RandomFourier
from lamina.core import encode, modelfile
from lamina.core.encodings import from_json, to_json
from lamina.core.spec import NetworkSpec

SENTENCE = r"^\w+: expected .*, got .*\. [A-Z].*\.$"
ENCODINGS = [
    HashGrid(n_levels=3, log2_table_size=6, base_resolution=4, finest_resolution=30),
    HashGrid(2, 3, 6, 5, 20, "tiled", "smoothstep", (-0.5, 2.0)),
    HashGrid(2, 1, 6, 5, 9, "dense"),
    Fourier(3),
    Fourier(2, include_input=False),
    RandomFourier(5, scale=2.0, rng=0),
    OneBlob(6),
]


def torch_corner_sum(grid, table, x):
    """The grid as PyTorch users write it: every level's corners looked up and weighted."""
    low, high = grid.bounds
    first, parts = 0, []
    for level in grid.levels(x.shape[1]):
        position = ((x - low) / (high - low)).clamp(0, 1) * level.resolution
        cell = position.detach().floor().clamp(max=level.resolution - 1).long()
        f = position - cell
        if grid.interpolation == "smoothstep":
            f = f * f * (3 - 2 * f)
        total = 0
        for corner in range(2 ** x.shape[1]):
            up = torch.tensor([corner >> j & 1 for j in range(x.shape[1])])
            at = cell + up
            if level.hashed:
                index = at[:, 0]
                for j in range(1, x.shape[1]):
                    index = index ^ (at[:, j] * (2654435761, 805459861)[j - 1])
            else:
                index = sum(at[:, j] * (level.resolution + 1) ** j for j in range(x.shape[1]))
            weight = torch.where(up == 1, f, 1 - f).prod(dim=1, keepdim=True)
            total = total + weight * table[first + index % level.entries]
        parts.append(total)
        first += level.entries
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("d_in", [1, 2, 3])
@pytest.mark.parametrize("grid", [e for e in ENCODINGS if isinstance(e, HashGrid)], ids=str)
def test_the_twin_of_the_grid_matches_pytorch(grid, d_in):
    rng = np.random.default_rng(0)
    table = rng.normal(size=grid.table_shape(d_in))
    x = rng.uniform(-1.2, 1.2, (50, d_in))
    g = rng.normal(size=(50, grid.d_out(d_in)))
    table_t, x_t = torch.tensor(table, requires_grad=True), torch.tensor(x, requires_grad=True)
    h = torch_corner_sum(grid, table_t, x_t)
    (h * torch.tensor(g)).sum().backward()
    grad_table, grad_x = encode.backward(grid, table, x, g)
    assert_close(encode.encode(grid, table, x), h.detach().numpy(), rounding(np.float64, 100))
    assert_close(grad_table, table_t.grad.numpy(), rounding(np.float64, 100))
    assert_close(grad_x, x_t.grad.numpy(), rounding(np.float64, 100))


@pytest.mark.parametrize("d_in", [1, 2, 3])
@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_tangents_match_finite_differences(encoding, d_in):
    encoding = encoding.bind(d_in)
    rng = np.random.default_rng(1)
    table, x = rng.normal(size=encoding.table_shape(d_in)), rng.uniform(-0.4, 0.9, (20, d_in))
    step = difference_step()
    for j in range(d_in):
        there, back = x.copy(), x.copy()
        there[:, j] += step
        back[:, j] -= step
        expected = encode.encode(encoding, table, there) - encode.encode(encoding, table, back)
        ours = encode.tangent(encoding, table, x, j)
        assert_close(ours, expected / (2 * step), finite_difference(100))


@pytest.mark.parametrize("d_in", [1, 2, 3])
@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_higher_derivatives_match_finite_differences(encoding, d_in):
    encoding = encoding.bind(d_in)
    rng = np.random.default_rng(1)
    table, x = rng.normal(size=encoding.table_shape(d_in)), rng.uniform(-0.4, 0.9, (20, d_in))
    step, j, k = difference_step(), d_in - 1, 0
    for axes in ((j, k), (j, j), (j, j, k)):
        ends = []
        for sign in (1, -1):
            moved = x.copy()
            moved[:, axes[-1]] += sign * step
            ends.append(encode.derivative(encoding, table, moved, axes[:-1]))
        expected = (ends[0] - ends[1]) / (2 * step)
        ours = encode.derivative(encoding, table, x, axes)
        scale = max(np.abs(expected).max(), np.abs(ends[0]).max())  # zero of a linear grid
        assert_small(ours - expected, scale, finite_difference(100))
        assert ours.any() == (np.abs(expected).max() > 1e-3 * scale)


def test_fourier_is_what_the_paper_writes():
    x = np.array([[0.3, -0.7]])
    pairs = [f(2**k * math.pi * v) for v in x[0] for k in range(2) for f in (math.sin, math.cos)]
    ours = encode.encode(Fourier(2), np.zeros((0, 1)), x)
    assert_close(ours, [[0.3, -0.7, *pairs]], rounding(np.float64))


def test_random_fourier_is_what_the_paper_writes():
    waves = RandomFourier(4, matrix=np.arange(8.0).reshape(4, 2) / 3)
    x = np.array([[0.3, -0.7]])
    turns = 2 * math.pi * (np.array(waves.matrix) @ x[0])
    expected = [*np.cos(turns), *np.sin(turns)]
    assert_close(encode.encode(waves, np.zeros((0, 1)), x), [expected], rounding(np.float64))


def test_one_blob_integrates_to_one_inside():
    h = encode.encode(OneBlob(32, bounds=(0.0, 1.0)), np.zeros((0, 1)), np.array([[0.5]]))
    assert_close(h.sum(), 1.0, rounding(np.float64, 32))
    assert h.argmax() in (15, 16)


def test_levels_follow_the_paper():
    grid = HashGrid(16, 2, 14, 16, 512)
    n = grid.resolutions()
    assert (n[0], n[-1]) == (16, 512)
    growth = 32 ** (1 / 15)  # equation 3
    assert n[1:-1] == [math.floor(16 * growth**k) for k in range(1, 15)]
    for level in grid.levels(2):
        corners = (level.resolution + 1) ** 2
        assert level.hashed == (corners > 2**14)
        assert level.entries == (2**14 if level.hashed else -(-corners // 16) * 16)
    assert not any(level.hashed for level in HashGrid(kind="tiled").levels(2))
    assert not any(level.wraps for level in HashGrid(kind="dense").levels(2))
    assert HashGrid(n_levels=1, base_resolution=7, finest_resolution=7).resolutions() == [7]


def test_the_same_seed_gives_the_same_matrix_and_table():
    a, b = (RandomFourier(8, rng=5).bind(3) for _ in range(2))
    assert a == b
    assert a != RandomFourier(8, rng=6).bind(3)
    first, second = (lamina.Network(2, (4,), 1, encoding=ENCODINGS[0], rng=7) for _ in range(2))
    assert np.array_equal(first.theta, second.theta)
    assert 0.9e-4 < np.abs(first.table).max() <= 1e-4
    plain = lamina.Network(6, (4,), 1, rng=7)  # the layers' weights are drawn first
    assert np.array_equal(first.weights[0], plain.weights[0])


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_a_network_survives_files_pickle_and_copies(tmp_path, encoding):
    net = lamina.Network(2, (8,), 2, encoding=encoding, skips={2: (0,)}, rng=0)
    x = np.random.default_rng(0).uniform(-1, 1, (9, 2))
    net.save(tmp_path / "m")
    again = [
        lamina.load(tmp_path / "m"),
        pickle.loads(pickle.dumps(net)),
        copy.deepcopy(net),
        lamina.Network.from_spec(net.spec, net.theta),
        lamina.Network.from_spec(NetworkSpec.from_json(net.spec.to_json()), net.theta),
    ]
    for other in again:
        assert other.spec == net.spec
        assert other.encoding == net.encoding
        assert np.array_equal(other(x), net(x))
    assert type(net.encoding).__name__ in repr(net)
    assert from_json(to_json(net.encoding)) == net.encoding


def test_the_table_can_be_read_and_set():
    net = lamina.Network(2, (8,), 1, encoding=ENCODINGS[0], rng=0)
    assert net.n_params == 8 * 6 + 8 + 8 + 1 + net.table.size
    assert not net.table.flags.writeable
    before = net([[0.1, 0.2]])
    net.table = net.table + 1.0
    assert not np.array_equal(net([[0.1, 0.2]]), before)
    with pytest.raises(lamina.ShapeError, match=r"net\.table: expected shape"):
        net.table = np.zeros(3)
    with pytest.raises(lamina.DataError, match=r"net\.table: expected finite"):
        net.table = np.full(net.table.shape, np.nan)
    plain = lamina.Network(2, (8,), 1)
    assert plain.table is None
    assert plain.encoding is None
    assert plain.gradients([[0.0, 1.0]], [0.0]).table is None
    with pytest.raises(lamina.SpecError, match=r"net\.table: expected a network whose"):
        plain.table = np.zeros((1, 1))


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (HashGrid, {"n_levels": 0}),
        (HashGrid, {"n_levels": 65}),
        (HashGrid, {"n_levels": 2.0}),
        (HashGrid, {"n_features": 5}),
        (HashGrid, {"log2_table_size": 3}),
        (HashGrid, {"log2_table_size": 29}),
        (HashGrid, {"base_resolution": 0}),
        (HashGrid, {"finest_resolution": 15}),
        (HashGrid, {"finest_resolution": 2**23}),
        (HashGrid, {"kind": "sparse"}),
        (HashGrid, {"interpolation": "cubic"}),
        (HashGrid, {"bounds": (1.0, -1.0)}),
        (HashGrid, {"bounds": (0.0, float("nan"))}),
        (HashGrid, {"bounds": (1.0, 1.0 + 1e-12)}),
        (HashGrid, {"bounds": 1.0}),
        (Fourier, {"n_frequencies": 0}),
        (Fourier, {"n_frequencies": 31}),
        (Fourier, {"include_input": 1}),
        (RandomFourier, {"n_features": 0}),
        (RandomFourier, {"scale": 0.0}),
        (RandomFourier, {"scale": float("inf")}),
        (RandomFourier, {"matrix": [[1.0, 2.0]]}),
        (RandomFourier, {"n_features": 1, "matrix": [["a"]]}),
        (RandomFourier, {"n_features": 1, "matrix": [[float("nan")]]}),
        (OneBlob, {"n_bins": 0}),
        (OneBlob, {"bounds": (0.0, 0.0)}),
    ],
    ids=str,
)
def test_a_bad_configuration_gives_one_sentence(kind, change):
    with pytest.raises(lamina.SpecError, match=SENTENCE):
        kind(**change)


@pytest.mark.parametrize(
    ("d_in", "encoding"),
    [
        (4, HashGrid()),
        (3, HashGrid(kind="dense", finest_resolution=2048)),
        (3, RandomFourier(2, matrix=[[1.0, 2.0], [3.0, 4.0]])),
        (2**16, RandomFourier(2)),
        (2**20, Fourier()),
        (2**20, OneBlob()),
        (2, HashGrid),
    ],
    ids=str,
)
def test_an_encoding_that_does_not_fit_is_refused_in_one_sentence(d_in, encoding):
    with pytest.raises(lamina.SpecError, match=SENTENCE):
        lamina.Network(d_in, (4,), 1, encoding=encoding)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_a_file_whose_encoding_lies_is_refused(tmp_path, encoding):
    net = lamina.Network(2, (8,), 2, encoding=encoding, rng=0)
    honest = to_json(net.encoding)
    lies = [{}, [], "grid", 3, {**honest, "more": 1}, {**honest, "name": "spiral"}]
    lies += [{**honest, "name": []}]
    lies += [{k: v for k, v in honest.items() if k != key} for key in honest]
    for key, value in honest.items():
        other = [None, {}, [], "x", -1, [[1e400]], [[]], [1, [2]]]
        lies += [{**honest, key: bad} for bad in other if bad != value]
    for lie in lies:
        spec = {**net.spec.to_json(), "encoding": lie}
        with pytest.raises(lamina.SpecError, match=SENTENCE):
            NetworkSpec.from_json(spec)
    if isinstance(encoding, HashGrid):  # another table than the file's theta has
        spec = {**net.spec.to_json(), "encoding": {**honest, "log2_table_size": 28}}
        spec["encoding"] |= {"finest_resolution": 2**20, "kind": "hash"}
        modelfile.write(tmp_path / "m", "network", spec, {"theta": net.theta})
        with pytest.raises(lamina.ModelFileError, match="expected a network"):
            lamina.load(tmp_path / "m")


@pytest.mark.parametrize("export", [lamina.to_onnx, lamina.to_torch, lamina.to_sklearn])
def test_exports_refuse_an_encoding(export):
    net = lamina.Network(2, (8,), 2, encoding=Fourier(2), rng=0)
    with pytest.raises(lamina.SpecError, match="expected a network without an encoding, got Four"):
        export(net)


def picture(x):
    """A small picture: a smooth ground, fine stripes, and the sharp edge of a disc."""
    stripes = np.sin(30 * x[:, :1]) * np.cos(24 * x[:, 1:])
    disc = (x**2).sum(axis=1, keepdims=True) < 0.4
    return np.concatenate([0.5 + 0.3 * stripes, 0.2 + 0.6 * disc, 0.5 + 0.4 * x[:, 1:]], axis=1)


def test_a_grid_fits_a_picture():
    side = np.linspace(-1, 1, 64)
    x = np.stack(np.meshgrid(side, side, indexing="ij"), axis=2).reshape(-1, 2)
    grid = HashGrid(n_levels=8, log2_table_size=10, base_resolution=8, finest_resolution=64)
    psnr = {}
    for encoding in (None, grid):
        net = lamina.Network(2, (32, 32), 3, encoding=encoding, rng=0)
        lamina.train(net, x, picture(x), optimizer=lamina.Adam(1e-2), max_epochs=60,
                     batch_size=1024, rng=0)  # fmt: skip
        psnr[encoding] = -10 * math.log10(((net(x) - picture(x)) ** 2).mean())
    assert psnr[grid] > 30
    assert psnr[grid] > psnr[None] + 8


@pytest.mark.parametrize("optimizer", [lamina.SGD(0.05, momentum=0.9), lamina.LBFGS()], ids=repr)
def test_other_optimisers_learn_a_table(optimizer):
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (256, 2))
    y = np.sin(9 * x[:, :1])
    net = lamina.Network(2, (16,), 1, encoding=ENCODINGS[0], dtype="float64", rng=0)
    before, table = net.loss(x, y), net.table
    lamina.train(net, x, y, optimizer=optimizer, max_epochs=40, batch_size=64, rng=0)
    assert net.loss(x, y) < before / 4
    assert np.any(net.table != table)
