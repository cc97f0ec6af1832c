"""Column embeddings: their slow twin against PyTorch and differences, their start, refusals."""

import copy
import pickle

import numpy as np
import pytest
import torch
from tests.tolerances import assert_close, difference_step, finite_difference, rounding

import lamina
from lamina import ColumnEmbeddings
from lamina.core import encode
from lamina.core.encodings import from_json, to_json
from lamina.core.initialize import initialize
from lamina.core.spec import NetworkSpec

SENTENCE = r"^[\w.]+: expected .*, got .*\. [A-Z].*\.$"
CELLS = (10, -3, 1, -20, 40, -1)
FEATURES = [1, 2, 3, 4, 8, 12]


def rows(n, rng):
    """Rows for CELLS, some beyond every end; categories are whole numbers."""
    x = rng.uniform(-0.2, 1.2, (n, len(CELLS)))
    for j, c in enumerate(CELLS):
        if c < 0:
            x[:, j] = rng.integers(-1, -c + 1, n)
    return x


def torch_columns(encoding, embeddings, x):
    """The columns as PyTorch users write them."""
    parts = []
    for j, c in enumerate(encoding.cells):
        if c < 0:
            index = x[:, j].detach().clamp(0, -c - 1).long()
            parts.append(torch.nn.functional.embedding(index, embeddings[j]))
            continue
        position = x[:, j].clamp(0, 1) * c
        left = position.detach().floor().clamp(max=c - 1).long()
        f = (position - left)[:, None]
        parts.append((1 - f) * embeddings[j][left] + f * embeddings[j][left + 1])
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("n_features", FEATURES)
def test_the_twin_matches_pytorch(n_features):
    encoding = ColumnEmbeddings(CELLS, n_features)
    rng = np.random.default_rng(0)
    x = rows(70, rng)
    own = [rng.normal(size=(encoding.n_vectors(j), n_features)) for j in range(len(CELLS))]
    g = rng.normal(size=(70, encoding.d_out(len(CELLS))))
    own_t = [torch.tensor(one, requires_grad=True) for one in own]
    x_t = torch.tensor(x, requires_grad=True)
    h = torch_columns(encoding, own_t, x_t)
    (h * torch.tensor(g)).sum().backward()
    table = encoding.pack(own)
    grad_table, grad_x = encode.backward(encoding, table, x, g)
    assert_close(encode.encode(encoding, table, x), h.detach().numpy(), rounding(np.float64, 100))
    assert_close(grad_x, x_t.grad.numpy(), rounding(np.float64, 100))
    assert np.all(grad_x[:, [1, 3, 5]] == 0)
    for j, one in enumerate(own_t):
        ours = encoding.embedding(grad_table, j)
        assert_close(ours, one.grad.numpy(), rounding(np.float64, 100), f"column {j}")


def test_tangents_match_finite_differences():
    encoding = ColumnEmbeddings(CELLS, 8)
    rng = np.random.default_rng(1)
    table, x, step = rng.normal(size=encoding.table_shape(6)), rows(20, rng), difference_step()
    for j in range(6):
        there, back = x.copy(), x.copy()
        there[:, j] += step
        back[:, j] -= step
        expected = encode.encode(encoding, table, there) - encode.encode(encoding, table, back)
        ours = encode.tangent(encoding, table, x, j)
        assert_close(ours, expected / (2 * step), finite_difference(100))


@pytest.mark.parametrize("n_features", FEATURES)
def test_the_table_is_taken_apart_and_put_together(n_features):
    encoding = ColumnEmbeddings(CELLS, n_features)
    rng = np.random.default_rng(2)
    own = [rng.normal(size=(encoding.n_vectors(j), n_features)) for j in range(len(CELLS))]
    assert [len(one) for one in own] == [11, 3, 2, 20, 41, 1]
    table = encoding.pack(own)
    assert table.shape == encoding.table_shape(len(CELLS))
    assert np.count_nonzero(table) == 78 * n_features
    for j, one in enumerate(own):
        assert np.array_equal(encoding.embedding(table, j), one)
    with pytest.raises(lamina.ShapeError, match=SENTENCE):
        encoding.pack(own[:-1])
    with pytest.raises(lamina.ShapeError, match=SENTENCE):
        encoding.pack([*own[:-1], own[0]])


def test_a_numeric_column_starts_as_a_ramp_and_a_category_near_zero():
    encoding = ColumnEmbeddings((16,) * 200 + (-50,) * 40, 8)
    spec = NetworkSpec.create(240, (4,), 1, encoding=encoding, dtype="float64")
    table = initialize(spec, 0)[spec.table_slice].reshape(spec.table_shape)
    u = np.linspace(0, 1, 17) - 0.5
    ramps = np.concatenate([encoding.embedding(table, j) for j in range(200)], axis=1)
    slope = u @ ramps / (u @ u)
    noise = ramps - np.outer(u, slope)
    assert 0.9 < slope.std() / np.sqrt(12) < 1.1  # 1,600 draws: 5 deviations
    assert 0.009 < noise.std() < 0.0105
    categories = np.concatenate([encoding.embedding(table, j) for j in range(200, 240)])
    assert 0.29 < categories.std() < 0.31
    plain = lamina.Network(240 * 8, (4,), 1, rng=7)  # the layers' weights are drawn first
    ours = lamina.Network(240, (4,), 1, encoding=encoding, rng=7)
    assert np.array_equal(ours.weights[0], plain.weights[0])


def test_a_network_survives_files_pickle_and_copies(tmp_path):
    encoding = ColumnEmbeddings(np.array(CELLS), 8)
    net = lamina.Network(6, (8,), 2, encoding=encoding, skips={2: (0,)}, rng=0)
    x = rows(9, np.random.default_rng(0))
    net.save(tmp_path / "m")
    again = [
        lamina.load(tmp_path / "m"),
        pickle.loads(pickle.dumps(net)),
        copy.deepcopy(net),
        lamina.Network.from_spec(NetworkSpec.from_json(net.spec.to_json()), net.theta),
    ]
    for other in again:
        assert other.encoding == net.encoding
        assert np.array_equal(other(x), net(x))
    assert from_json(to_json(encoding)) == encoding
    honest = to_json(encoding)
    lies = [{**honest, "more": 1}, {**honest, "cells": [1, 2]}]
    lies += [{k: v for k, v in honest.items() if k != key} for key in honest]
    for key in honest:
        lies += [{**honest, key: bad} for bad in (None, {}, [], "x", -1, [[1e400]], [[]], [1, [2]])]
    for lie in lies:
        with pytest.raises(lamina.SpecError, match=SENTENCE):
            NetworkSpec.from_json({**net.spec.to_json(), "encoding": lie})


@pytest.mark.parametrize(
    ("cells", "n_features"),
    [
        ((), 8),
        (5, 8),
        ("ab", 8),
        (None, 8),
        ((4, 0), 8),
        ((4, 2.0), 8),
        ((1, True), 8),
        ((4, float("nan")), 8),
        ((2**20 + 1,), 8),
        ((-(2**20) - 1,), 8),
        ((4,), 0),
        ((4,), 5),
        ((4,), 10),
        ((4,), 68),
        ((4,), 8.0),
        ((4,) * 2**15, 64),
    ],
    ids=lambda v: str(v)[:20],
)
def test_a_bad_configuration_gives_one_sentence(cells, n_features):
    with pytest.raises(lamina.SpecError, match=SENTENCE):
        ColumnEmbeddings(cells, n_features)


def test_another_number_of_columns_is_refused_in_one_sentence():
    with pytest.raises(lamina.SpecError, match=SENTENCE):
        lamina.Network(2, (4,), 1, encoding=ColumnEmbeddings((4, 4, 4)))


def test_columns_fit_what_is_jagged_in_one_of_them():
    rng = np.random.default_rng(0)
    x = np.stack([*rng.uniform(0, 1, (2, 2000)), rng.integers(0, 12, 2000)], axis=1)
    y = np.abs(np.sin(25 * x[:, :1])) + np.sin(7.0 * x[:, 2:] ** 2) + x[:, 1:2]
    error = {}
    for encoding in (None, ColumnEmbeddings((32, 8, -12))):
        net = lamina.Network(3, (64, 64), 1, encoding=encoding, rng=0)
        lamina.train(net, x[:1500], y[:1500], optimizer=lamina.Adam(3e-3), max_epochs=60,
                     batch_size=64, rng=0)  # fmt: skip
        error[encoding] = ((net(x[1500:]) - y[1500:]) ** 2).mean() / y.var()
    assert error[encoding] < 0.02
    assert error[encoding] < error[None] / 5


@pytest.mark.parametrize("optimizer", [lamina.SGD(0.02, momentum=0.9), lamina.LBFGS()], ids=repr)
def test_other_optimisers_learn_the_columns(optimizer):
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (256, 2))
    y = np.sin(20 * x[:, :1])
    net = lamina.Network(2, (16,), 1, encoding=ColumnEmbeddings((16, 16)), dtype="float64", rng=0)
    before, table = net.loss(x, y), net.table
    lamina.train(net, x, y, optimizer=optimizer, max_epochs=60, batch_size=64, rng=0)
    assert net.loss(x, y) < before / 4
    assert np.any(net.table != table)
