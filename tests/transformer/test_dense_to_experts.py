"""upcycle starts as the same function; split regroups neurons; the curve is as measured."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from tests.tolerances import assert_close, assert_same_bits, rounding
from torch import Tensor, nn

from lamina.core.errors import DataError, ShapeError, SpecError
from lamina.transformer import (
    FeedForward,
    GatedFeedForward,
    MixtureOfExperts,
    compute_curve,
    split,
    upcycle,
)
from lamina.transformer.clustering import balanced_k_means

D_MODEL, D_FF, N = 16, 96, 8
BOTH = pytest.mark.parametrize("kind", [FeedForward, GatedFeedForward])


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


# --- upcycle ----------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("options", [{}, {"scores": "sigmoid", "balance": "bias"}, {"top_k": 1}])
@pytest.mark.parametrize("bias", [True, False])
def test_an_upcycled_layer_is_the_same_function_at_first(kind, options, bias):
    ffn = kind(D_MODEL, D_FF, "gelu", bias=bias)
    moe = upcycle(ffn, 5, **options)
    x = draw(40, D_MODEL)
    assert_close(moe(x).detach(), ffn(x).detach(), rounding("float32", D_FF, c=1))
    assert len(set(map(tuple, moe.routing.experts.tolist()))) > 1  # it does choose


def test_an_upcycled_layer_learns_apart_and_leaves_the_dense_one_alone():
    ffn = FeedForward(D_MODEL, D_FF, dropout=0.25).double().eval()
    before = copy.deepcopy(ffn.state_dict())
    moe = upcycle(ffn, 4, balance=None)
    assert (moe.dropout, moe.training, moe.w_in.dtype) == (0.25, False, torch.float64)
    moe.train()
    moe(draw(40, D_MODEL).double()).square().sum().backward()
    with torch.no_grad():
        moe.w_in -= moe.w_in.grad
    assert not torch.equal(moe.w_in[0], moe.w_in[1])
    for name, value in ffn.state_dict().items():
        assert_same_bits(value, before[name], name)


def test_upcycle_refuses_what_would_change_the_function():
    ffn = FeedForward(D_MODEL, D_FF)
    with pytest.raises(SpecError, match=r"upcycle: expected options among .*, got 'renormalise'"):
        upcycle(ffn, 4, renormalise=False)
    with pytest.raises(SpecError, match="got 'n_shared'"):
        upcycle(ffn, 4, n_shared=1)
    with pytest.raises(SpecError, match="expected a FeedForward or GatedFeedForward, got a Linear"):
        upcycle(nn.Linear(3, 3), 4)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="expected top_k of at most the 4 experts, got 5"):
        upcycle(ffn, 4, top_k=5)


# --- split ------------------------------------------------------------------------------------


def planted(kind: Any = FeedForward) -> tuple[Any, Tensor, np.ndarray]:
    """A layer of 8 groups, each awake for one kind of row, its neurons in random order."""
    ffn = kind(D_MODEL, D_FF, "relu", bias=True)
    group = np.random.default_rng(3).permutation(np.repeat(np.arange(N), D_FF // N))
    key = torch.eye(D_MODEL)[torch.from_numpy(group)]  # group g answers to coordinate g
    weights = ffn.weights()
    with torch.no_grad():
        into = weights.w_up if kind is FeedForward else weights.w_gate
        shift = weights.b_up if kind is FeedForward else weights.b_gate
        into.copy_(key + 0.01 * torch.randn_like(key))
        shift.fill_(-0.5)
    rng = np.random.default_rng(4)
    x = 0.1 * rng.standard_normal((1200, D_MODEL))
    x[np.arange(1200), rng.integers(0, N, 1200)] += 2.0
    return ffn, torch.from_numpy(x.astype(np.float32)), group


@BOTH
def test_planted_groups_are_found_and_one_of_them_is_enough(kind):
    ffn, x, group = planted(kind)
    experts = split(ffn, N, x[:1000], top_k=1, rng=0)
    # Neurons are recognised by their values, the columns of w_down.
    values = ffn.weights().w_down.detach().T  # (d_ff, d_model)
    for e in range(N):
        mine = experts.w_down[e].detach().T
        same = (mine[:, None] == values).all(dim=2)  # (d_ff / N, d_ff)
        assert len(set(group[same.int().argmax(dim=1).numpy()])) == 1
    curve = compute_curve(experts, ffn, x[1000:], [1, N])
    assert curve.best_error[0] < 1e-3
    assert curve.error[0] < 0.05
    assert curve.mass[0] > 0.99


@BOTH
@pytest.mark.parametrize("bias", [True, False])
def test_all_groups_together_are_the_dense_layer(kind, bias):
    ffn = kind(D_MODEL, D_FF, "silu", bias=bias)
    x = draw(3, 50, D_MODEL)
    experts = split(ffn, 6, x, top_k=6, max_epochs=1, rng=0)
    assert experts.path(x) == "float32"
    assert_close(experts(x).detach(), ffn(x).detach(), rounding("float32", D_FF, c=1))
    assert sorted(experts.w_up.detach().flatten().tolist()) == sorted(
        ffn.weights().w_up.detach().flatten().tolist()
    )
    experts.top_k = 2
    experts(x).sum().backward()
    assert experts.w_down.grad.abs().max() > 0


def test_the_curve_is_as_computed_by_masks():
    ffn, x = FeedForward(D_MODEL, D_FF, "relu"), draw(200, D_MODEL)
    experts = split(ffn, 6, x, max_epochs=3, rng=0)
    curve = compute_curve(experts, ffn, x, [2, 6])
    with torch.no_grad():
        scores, pre = experts.router(x), torch.einsum("nd,efd->nef", x, experts.w_up)
        h = (pre + experts.b_up).relu()  # (n, n_experts, width)
        used = torch.zeros(200, 6).scatter(1, scores.topk(2).indices, 1.0)
        y = torch.einsum("nef,edf->nd", h * used[:, :, None], experts.w_down) + ffn.b_out
        dense = ffn(x)
    assert_close(curve.error[0], (y - dense).norm() / dense.norm(), 1e-4)
    assert_close(curve.mass[0], (h * used[:, :, None]).sum() / h.sum(), 1e-4)
    effect = (h * experts.w_down.detach().norm(dim=1)).sum(dim=2)
    best = torch.zeros(200, 6).scatter(1, effect.topk(2).indices, 1.0)
    assert_close(curve.best_mass[0], (h * best[:, :, None]).sum() / h.sum(), 1e-4)
    assert curve.error[1] < 1e-6
    assert_close(curve.mass[1], 1.0, 1e-6)
    assert curve.compute.tolist() == [2 / 6, 1.0]
    assert (curve.best_mass >= curve.mass - 1e-3).all()


def test_the_router_beats_chance_where_rows_differ():
    ffn, x, _ = planted()
    fitted = split(ffn, N, x[:1000], rng=0)
    chance = split(ffn, N, x[:1000], max_epochs=1, rng=0)
    nn.init.zeros_(chance.router.outer.weight)
    guess, luck = (compute_curve(e, ffn, x[1000:], [1]) for e in (fitted, chance))
    assert guess.error[0] < 0.2 * luck.error[0]


def test_the_router_takes_rows_of_any_mean_and_scale():
    scale = torch.logspace(-1, 1, D_MODEL)
    ffn, x = FeedForward(D_MODEL, D_FF, "relu"), draw(1200, D_MODEL) * scale + 3
    with torch.no_grad():
        ffn.w_in /= scale
    experts = split(ffn, N, x[:1000], rng=0)
    guess = experts.router(x[1000:]).detach().flatten()
    effect = experts.masses(x[1000:])[1].flatten()
    assert np.corrcoef(guess, effect)[0, 1] > 0.9


def test_the_same_seed_splits_alike_and_the_layer_is_left_alone():
    ffn, x = FeedForward(D_MODEL, D_FF), draw(300, D_MODEL)
    before = copy.deepcopy(ffn.state_dict())
    a, b = (split(ffn, 6, x, max_epochs=2, rng=5) for _ in range(2))
    for name, value in a.state_dict().items():
        assert_same_bits(value, b.state_dict()[name], name)
    for name, value in ffn.state_dict().items():
        assert_same_bits(value, before[name], name)


def test_the_curve_is_drawn_and_printed():
    ffn, x = FeedForward(D_MODEL, D_FF, "relu"), draw(200, D_MODEL)
    curve = compute_curve(split(ffn, N, x, max_epochs=1, rng=0), ffn, x)
    assert len(str(curve).splitlines()) == 1 + len(curve.top_k)
    assert curve.top_k.tolist() == sorted({*curve.top_k.tolist()})
    assert len(curve.plot().axes) == 2


def test_clusters_are_balanced_and_those_of_clear_points():
    rng = np.random.default_rng(0)
    points = np.repeat(10 * np.eye(5), 12, axis=0) + rng.standard_normal((60, 5))
    labels = balanced_k_means(points, 5, rng)
    assert sorted(np.bincount(labels).tolist()) == [12] * 5
    assert all(len(set(labels[12 * i : 12 * i + 12])) == 1 for i in range(5))
    same = balanced_k_means(np.zeros((6, 2)), 3, rng)
    assert np.bincount(same).tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"n_experts": 7}, SpecError, "expected n_experts to divide the 96 neurons, got 7"),
        ({"n_experts": 8, "top_k": 9}, SpecError, "expected top_k of at most the 8 experts, got 9"),
        ({"x": draw(0, D_MODEL)}, DataError, "expected sample rows, got none"),
        ({"x": draw(5, 3)}, ShapeError, r"expected x of shape \(..., 16\), got \(5, 3\)"),
        ({"x": draw(5, D_MODEL) / 0}, DataError, "got NaN or infinity in 5 of 5 rows"),
        (
            {"ffn": MixtureOfExperts(4, 4)},
            SpecError,
            "expected a FeedForward or Gated.*, got a Mix",
        ),
    ],
)
def test_a_wrong_call_of_split_gets_one_sentence(change, error, sentence):
    call = {"ffn": FeedForward(D_MODEL, D_FF), "n_experts": 8, "x": draw(50, D_MODEL), **change}
    with pytest.raises(error, match=sentence) as caught:
        split(**call)
    assert str(caught.value).startswith("split: ")


def test_a_wrong_number_of_groups_gets_one_sentence():
    ffn, x = FeedForward(D_MODEL, D_FF), draw(50, D_MODEL)
    experts = split(ffn, 8, x, max_epochs=1, rng=0)
    experts.top_k = 9
    with pytest.raises(SpecError, match="expected top_k from 1 to the 8 experts, got 9"):
        experts(x)
    with pytest.raises(SpecError, match="expected numbers from 1 to the 8 experts"):
        compute_curve(experts, ffn, x, [0, 3])
    with pytest.raises(SpecError, match="expected what split returned, got a FeedForward"):
        compute_curve(ffn, ffn, x)  # type: ignore[arg-type]
