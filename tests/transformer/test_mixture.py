"""MixtureOfExperts: transformers' numbers, balance, capacity, statistics, all ways it is run."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from tests.tolerances import assert_close, assert_same_bits, rounding
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lamina.core.engine import bfloat16_unit
from lamina.core.errors import DataError, ShapeError, SpecError
from lamina.transformer import MixtureOfExperts, RoutingStatistics, plot_routing

D_MODEL, D_FF, N_EXPERTS, TOP_K = 24, 40, 5, 2
PLAIN = {"gated": False, "bias": True, "activation": "gelu"}
DEEPSEEK = {"scores": "sigmoid", "balance": "bias", "n_shared": 2, "bias_rate": 0.01}
KINDS = pytest.mark.parametrize("options", [{}, PLAIN, DEEPSEEK, {"capacity_factor": 0.5}])


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()  # its limit of recompilations counts those of all tests


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def mixture(**options: Any) -> MixtureOfExperts:
    return MixtureOfExperts(D_MODEL, D_FF, N_EXPERTS, TOP_K, **options)


def row_by_row(moe: Any, x: Tensor) -> Tensor:
    """The definition, in float64: one token after the other."""
    p = {n: w.detach().double() for n, w in [*moe.named_parameters(), *moe.named_buffers()]}
    p = {n: w.requires_grad_() for n, w in p.items()}
    phi = {"silu": nn.functional.silu, "gelu": nn.functional.gelu}[moe.activation]

    def layer(v: Tensor, pick: Any, prefix: str = "") -> Tensor:
        def linear(u: Tensor, name: str) -> Tensor:
            b = p.get(f"{prefix}b_{name}")
            return pick(p[f"{prefix}w_{name}"]) @ u + (0 if b is None else pick(b))

        if moe.gated:
            return linear(phi(linear(v, "gate")) * linear(v, "up"), "down")
        return linear(phi(linear(v, "in")), "out")

    rows = x.reshape(-1, x.shape[-1])
    logits = rows @ p["router.weight"].T
    scores = logits.softmax(1) if moe.router.scores == "softmax" else logits.sigmoid()
    seen = scores + p.get("router.selection_bias", torch.zeros(()))
    chosen = [sorted(range(N_EXPERTS), key=lambda e: -s[e])[:TOP_K] for s in seen.tolist()]
    room = [math.inf] * N_EXPERTS
    if moe.capacity_factor:
        room = [math.ceil(moe.capacity_factor * len(rows) * TOP_K / N_EXPERTS)] * N_EXPERTS
    kept = {}
    for k in range(TOP_K):
        for t in range(len(rows)):
            kept[t, k] = room[chosen[t][k]] > 0
            room[chosen[t][k]] -= 1
    out = []
    for t, v in enumerate(rows):
        share = scores[t, chosen[t]]
        if moe.router.renormalise:
            share = share / share.sum()
        y = sum(
            (
                share[k] * layer(v, lambda w, e=e: w[e])
                for k, e in enumerate(chosen[t])
                if kept[t, k]
            ),
            torch.zeros(D_MODEL, dtype=torch.float64),
        )
        out.append(y + layer(v, lambda w: w, "shared.") if moe.shared is not None else y)
    row_by_row.leaves = p
    return torch.stack(out).view(x.shape)


def gradients(y: Tensor, x: Tensor, parameters: dict[str, Tensor], grad: Tensor) -> dict[str, Any]:
    found = torch.autograd.grad(y, [x, *parameters.values()], grad.to(y.dtype), allow_unused=True)
    named = zip(["y", "x", *parameters], [y.detach(), *found], strict=True)
    return {n: t.double().numpy() for n, t in named if t is not None}


def of_module(moe: nn.Module, x: Tensor, grad: Tensor) -> dict[str, Any]:
    x = x.detach().clone().requires_grad_()
    return gradients(moe(x), x, dict(moe.named_parameters()), grad)


@KINDS
@pytest.mark.parametrize("native", [True, False])
def test_outputs_and_gradients_are_the_definition_token_by_token(options, native):
    moe = mixture(native=native, **options)
    x, grad = draw(3, 11, D_MODEL), draw(3, 11, D_MODEL, seed=2)
    got = of_module(moe, x, grad)
    assert moe.path(x) == ("float32" if native else "torch")
    x = x.double().requires_grad_()
    y = row_by_row(moe, x)
    wanted = gradients(y, x, row_by_row.leaves, grad)
    assert {n for n in wanted if "pending" not in n and "selection" not in n} == set(got)
    for name in got:
        assert_close(got[name], wanted[name], rounding("float32", D_FF, c=4), name)


def hugging_face(family: str, impl: str = "eager") -> Any:
    """A sparse block of transformers with a tiny random configuration."""
    sizes = {"hidden_size": D_MODEL, "intermediate_size": D_FF, "num_experts_per_tok": TOP_K}
    if family == "mixtral":
        from transformers.models.mixtral import modeling_mixtral as m

        config = m.MixtralConfig(num_local_experts=N_EXPERTS, **sizes)
        config._experts_implementation = impl
        block = m.MixtralSparseMoeBlock(config)
    else:
        from transformers.models.olmoe import modeling_olmoe as m

        config = m.OlmoeConfig(num_experts=N_EXPERTS, **sizes)
        config._experts_implementation = impl
        block = m.OlmoeSparseMoeBlock(config)
    for p in block.parameters():
        nn.init.normal_(p, std=0.3)
    return block


def copied(block: Any, **options: Any) -> MixtureOfExperts:
    moe = mixture(**options)
    with torch.no_grad():
        gate, up = block.experts.gate_up_proj.chunk(2, dim=1)
        moe.w_gate.copy_(gate)
        moe.w_up.copy_(up)
        moe.w_down.copy_(block.experts.down_proj)
        moe.router.weight.copy_(block.gate.weight)
    return moe


def fused(found: dict[str, Any]) -> dict[str, Any]:
    """Our gradients, under the names and in the shapes of transformers."""
    both = np.concatenate([found["w_gate"], found["w_up"]], axis=1)
    names = {"experts.gate_up_proj": both, "experts.down_proj": found["w_down"]}
    return {"y": found["y"], "x": found["x"], "gate.weight": found["router.weight"], **names}


@pytest.mark.parametrize(("family", "renormalise"), [("mixtral", True), ("olmoe", False)])
def test_transformers_block_computes_the_same(family, renormalise):
    block = hugging_face(family)
    moe = copied(block, renormalise=renormalise)
    x, grad = draw(2, 9, D_MODEL), draw(2, 9, D_MODEL, seed=2)
    wanted, got = of_module(block, x, grad), fused(of_module(moe, x, grad))
    for name, value in wanted.items():
        assert_close(got[name], value, 1e-5, name)


@pytest.mark.skipif(bfloat16_unit() is None, reason="no bfloat16 products here")
@pytest.mark.parametrize("way", ["tensors", "autocast", "precision"])
def test_bfloat16_is_no_worse_than_transformers_own(way):
    block = hugging_face("mixtral").bfloat16()
    x, grad = draw(1, 40, D_MODEL).bfloat16(), draw(1, 40, D_MODEL, seed=2).bfloat16()
    # Tokens whose choice hangs on a rounding are left out: they are other functions.
    scores = (x.double()[0] @ block.gate.weight.double().T).sort(dim=1, descending=True).values
    sure = (scores[:, TOP_K - 1] - scores[:, TOP_K]) > 0.05 * scores.abs().amax(dim=1)
    x, grad = x[:, sure], grad[:, sure]
    assert x.shape[1] >= 20
    exact = of_module(copy.deepcopy(block).double(), x.double(), grad.double())
    theirs = of_module(block, x, grad)
    moe = copied(block.float(), precision="bfloat16" if way == "precision" else None)
    if way == "tensors":
        moe = moe.bfloat16()
    else:
        x = x.float()
    with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
        assert moe.path(x) == "bfloat16"
        ours = fused(of_module(moe, x, grad.float()))
    for name, value in exact.items():
        error, own = (np.linalg.norm(r[name] - value) for r in (ours, theirs))
        assert error <= 1.1 * own, f"{name}: {error:g}, transformers' own {own:g}"


# --- the router -------------------------------------------------------------------------------


def test_the_balance_loss_is_one_when_even_and_as_by_hand():
    moe = mixture(balance_weight=0.5, z_weight=0.25)
    moe(draw(30, D_MODEL))
    logits = moe.routing.logits.detach().double().numpy()
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    chosen = np.argsort(-p, axis=1)[:, :TOP_K]
    share = np.bincount(chosen.ravel(), minlength=N_EXPERTS) / chosen.size
    balance = N_EXPERTS * (share * p.mean(0)).sum()
    z = (np.log(np.exp(logits).sum(1)) ** 2).mean()
    assert_close(moe.balance_loss.detach(), balance, 1e-6)
    assert_close(moe.z_loss.detach(), z, 1e-6)
    assert_close(moe.aux_loss.detach(), 0.5 * balance + 0.25 * z, 1e-6)
    assert_close(moe.load, share, 1e-6)
    nn.init.zeros_(moe.router.weight)
    moe(draw(30, D_MODEL))
    assert_close(moe.balance_loss.detach(), 1.0, 1e-6)


def test_the_balance_loss_is_transformers_over_top_k():
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    moe = mixture()
    moe(draw(30, D_MODEL))
    theirs = load_balancing_loss_func((moe.routing.logits,), N_EXPERTS, TOP_K)
    assert_close(moe.balance_loss.detach(), theirs.detach() / TOP_K, 1e-6)


def test_the_auxiliary_loss_has_a_gradient_for_the_router_alone():
    moe = mixture(z_weight=1e-3)
    moe(draw(30, D_MODEL))
    moe.aux_loss.backward()
    assert moe.router.weight.grad.abs().max() > 0
    assert moe.w_up.grad is None
    assert mixture(balance=None)(draw(3, D_MODEL)) is not None


def crowded(moe: MixtureOfExperts) -> Tensor:
    """Rows that all want the same experts at first."""
    x = draw(128, D_MODEL) + 1.0
    with torch.no_grad():
        moe.router.weight.copy_(draw(N_EXPERTS, D_MODEL) * 0.1)
        moe.router.weight[0] += 0.2
    moe(x)
    assert moe.statistics().spread[1] > 2
    return x


def test_the_selection_bias_evens_the_load_without_touching_the_loss():
    moe = mixture(scores="sigmoid", balance="bias", bias_rate=0.05)
    x = crowded(moe)
    assert float(moe.aux_loss) == 0
    for _ in range(60):
        moe(x)
    low, high = moe.statistics().spread
    assert 0.5 < low <= high < 2
    bias = moe.router.selection_bias
    assert bias.abs().max() > 0.1
    steps = bias / 0.05
    assert_close(steps, steps.round(), 1e-3)  # whole numbers of steps
    moe.eval()
    before = bias.clone()
    moe(x)
    moe(x)
    assert_same_bits(bias, before)  # evaluation learns nothing


def test_the_selection_bias_moves_by_the_sign_of_the_load_error():
    moe = mixture(balance="bias", bias_rate=0.25)
    x = draw(30, D_MODEL)
    moe(x)
    error = 1 / N_EXPERTS - moe.load
    assert not moe.router.selection_bias.any()
    moe(x)
    assert_same_bits(moe.router.selection_bias, 0.25 * error.sign())
    # It chooses, and it does not weigh.
    scores, chosen = moe.routing.scores, moe.routing.experts
    wanted = (scores + moe.router.selection_bias).topk(TOP_K).indices
    assert torch.equal(chosen, wanted)
    picked = scores.gather(1, chosen)
    assert_close(moe.routing.share.detach(), (picked / picked.sum(1, keepdim=True)).detach(), 1e-6)


def test_the_selection_bias_stays_in_float32():
    moe = mixture(balance="bias")
    moe.router.selection_bias.fill_(0.12345)
    moe = moe.bfloat16()
    assert moe.router.selection_bias.dtype == torch.float32
    assert_close(moe.router.selection_bias, np.full(N_EXPERTS, 0.12345), 1e-6)
    assert "router.selection_bias" in moe.state_dict()


def test_the_balance_loss_evens_the_load_when_it_is_learned_from():
    moe = mixture(balance_weight=1.0)
    x = crowded(moe)
    optimiser = torch.optim.Adam(moe.router.parameters(), lr=0.02)
    for _ in range(70):
        optimiser.zero_grad()
        moe(x)
        moe.aux_loss.backward()
        optimiser.step()
    low, high = moe.statistics().spread
    assert 0.5 < low <= high < 2


def test_jitter_moves_the_router_in_training_and_nothing_else():
    moe = mixture(jitter=0.3, balance=None)
    x = draw(30, D_MODEL)
    moe(x)
    first = moe.routing.logits
    moe(x)
    noise = (moe.routing.logits - first).detach().abs().max()
    assert noise > 1e-3
    y, again = moe.eval()(x), moe(x)
    assert_same_bits(y.detach(), again.detach())


# --- capacity ---------------------------------------------------------------------------------


@pytest.mark.parametrize("drop", ["position", "score"])
def test_capacity_bounds_every_expert_and_drops_who_it_should(drop):
    moe = mixture(capacity_factor=0.5, drop=drop)
    x = draw(40, D_MODEL)
    moe(x)
    routing, capacity = moe.routing, math.ceil(0.5 * 40 * TOP_K / N_EXPERTS)
    kept = torch.zeros(N_EXPERTS).scatter_add(0, routing.experts[routing.kept], torch.ones(80))
    assert_same_bits(kept, routing.counts().clamp(max=capacity))
    assert (routing.share[~routing.kept] == 0).all()
    assert (routing.share[routing.kept] > 0).all()
    for e in range(N_EXPERTS):
        t, k = torch.where(routing.experts == e)
        stays = routing.kept[t, k]
        if drop == "score":
            worth = routing.scores[t, e]
        else:
            worth = -(k * 40 + t)
        if not stays.all():
            assert worth[stays].min() >= worth[~stays].max()
    assert moe.statistics().n_dropped == int((~routing.kept).sum()) > 0


def test_room_for_all_drops_nothing():
    x = draw(40, D_MODEL)
    moe = mixture(capacity_factor=float(N_EXPERTS))
    y = moe(x)
    assert moe.statistics().n_dropped == 0
    moe.capacity_factor = None
    assert_same_bits(y.detach(), moe(x).detach())


# --- statistics -------------------------------------------------------------------------------


def test_statistics_are_those_of_hand():
    a = RoutingStatistics(np.array([6, 2, 0, 0]), 4, 2, 1, 0.5)
    assert a.load.tolist() == [0.75, 0.25, 0, 0]
    assert a.dead == [2, 3]
    assert a.dropped == 0.125
    assert a.spread == (0.0, 3.0)
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(4)
    assert math.isclose(a.load_entropy, expected)
    b = a + RoutingStatistics(np.array([0, 0, 8, 16]), 12, 2, 3, 0.1)
    assert (b.counts.tolist(), b.n_tokens, b.n_dropped, b.dead) == ([6, 2, 8, 16], 16, 4, [])
    assert math.isclose(b.router_entropy, 0.2)
    assert "dead: 2, 3" in str(a)
    with pytest.raises(ShapeError, match="expected 4 experts, top 2, got 3, top 2"):
        a + RoutingStatistics(np.array([1, 1, 0]), 1, 2, 0, 0.0)


def test_statistics_of_a_pass_know_its_tokens():
    moe = mixture()
    moe(draw(3, 10, D_MODEL))
    s = moe.statistics()
    assert (s.n_tokens, s.top_k, int(s.counts.sum()), s.n_dropped) == (30, TOP_K, 60, 0)
    assert_close(s.load, moe.load, 1e-6)
    p = moe.routing.scores.detach().double()
    assert_close(s.router_entropy, -(p * p.log()).sum(1).mean(), 1e-6)


def test_pictures_are_drawn():
    moe = mixture(capacity_factor=1.0)
    steps = []
    for seed in range(3):
        moe(draw(30, D_MODEL, seed=seed))
        steps.append(moe.statistics())
    figure = steps[0].plot()
    assert len(figure.axes[0].patches) == N_EXPERTS
    figure = plot_routing(steps)
    assert figure.axes[0].images[0].get_array().shape == (N_EXPERTS, 3)
    with pytest.raises(SpecError, match="expected statistics of one mixture's passes, got 0"):
        plot_routing([])


# --- the ways PyTorch runs a module -----------------------------------------------------------


@KINDS
def test_inference_copies_and_pickles_give_the_bits_of_training(options):
    moe = mixture(**options)
    x = draw(7, D_MODEL)
    y = moe(x).detach()
    moe.eval()
    with torch.inference_mode():
        assert_same_bits(moe(x), y)
        assert_same_bits(moe(x), y, "packed")
    assert moe._slot._kept is not None
    moe(x).sum().backward()  # a routing that hangs on a graph is not copied
    for twin in (copy.deepcopy(moe), pickle.loads(pickle.dumps(moe))):
        assert_same_bits(twin(x).detach(), y)
        assert repr(twin) == repr(moe)


@KINDS
def test_one_token_learns_what_many_would(options):
    moe = mixture(**options)
    x, grad = draw(1, D_MODEL), draw(1, D_MODEL, seed=2)
    got = of_module(moe, x, grad)
    moe.native = False
    if moe.router.selection_bias is not None:
        moe.router.selection_bias.zero_()
        moe.router.pending.zero_()
    wanted = of_module(moe, x, grad)
    for name, value in wanted.items():
        if np.abs(value).max() > 1e-6:
            assert_close(got[name], value, rounding("float32", D_FF), name)
    idle = sorted({*range(N_EXPERTS)} - {*moe.routing.experts[0].tolist()})
    first = got["w_up" if moe.gated else "w_in"]
    assert len(idle) == N_EXPERTS - TOP_K
    assert not first[idle].any()


@pytest.mark.parametrize("options", [{}, DEEPSEEK, {"jitter": 0.2}])
def test_gradient_checkpointing_changes_nothing(options):
    x, grad = draw(9, D_MODEL), draw(9, D_MODEL, seed=2)
    found = []
    for through in (False, True):
        torch.manual_seed(3)
        moe = mixture(**options)
        for _ in range(3):  # the selection bias moves in between
            moe.zero_grad()
            y = checkpoint(moe, x.requires_grad_(), use_reentrant=False) if through else moe(x)
            ((y * grad).sum() + moe.aux_loss).backward()
        found.append({n: p.grad for n, p in moe.named_parameters()})
        found[-1] |= {f"buffer {n}": b for n, b in moe.named_buffers()}
    for name, value in found[0].items():
        assert_same_bits(found[1][name], value, name)


def test_torch_compile_takes_the_whole_graph():
    moe = mixture(balance="bias", n_shared=1)
    twin = copy.deepcopy(moe)
    compiled = torch.compile(moe, fullgraph=True, backend="aot_eager")
    x, grad = draw(9, D_MODEL), draw(9, D_MODEL, seed=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of its modules
        for _ in range(2):
            y = compiled(x)
            y.backward(grad)
            twin(x).backward(grad)
    for (name, p), q in zip(moe.named_parameters(), twin.parameters(), strict=True):
        assert_same_bits(p.grad, q.grad, name)
    assert_same_bits(moe.router.selection_bias, twin.router.selection_bias)
    assert_same_bits(moe.load, twin.load)


@pytest.mark.slow
@KINDS
@pytest.mark.parametrize("native", [True, False])
def test_torch_compile_with_its_own_code_generator(options, native):
    moe = mixture(native=native, **options)
    compiled = torch.compile(moe, fullgraph=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for n in (9, 16, 30):
            x, grad = draw(n, D_MODEL), draw(n, D_MODEL, seed=2)
            moe.zero_grad()
            if moe.router.selection_bias is not None:
                moe.router.selection_bias.zero_()
                moe.router.pending.zero_()
            y = compiled(x)
            ((y * grad).sum() + moe.aux_loss).backward()
            got = {name: p.grad.clone() for name, p in moe.named_parameters()}
            twin = copy.deepcopy(moe)
            twin.zero_grad()
            if twin.router.selection_bias is not None:
                twin.router.selection_bias.zero_()
                twin.router.pending.zero_()
            z = twin(x)
            ((z * grad).sum() + twin.aux_loss).backward()
            assert_close(y.detach(), z.detach(), 1e-5)
            for name, p in twin.named_parameters():
                assert_close(got[name], p.grad, 1e-5, name)


def test_meta_and_vmap_go_by_shapes_alone():
    moe = mixture(n_shared=1)
    x = draw(4, 6, D_MODEL)
    with torch.no_grad():
        assert_close(torch.vmap(moe)(x), moe(x), rounding("float32", D_FF))
    meta = mixture(device="meta", balance="bias")
    assert meta(torch.empty(2, 3, D_MODEL, device="meta")).shape == (2, 3, D_MODEL)


# --- mistakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"top_k": 9}, "expected top_k of at most the 5 experts, got 9"),
        ({"top_k": 0}, "expected top_k to be a whole number of at least 1"),
        ({"n_experts": 0}, "expected n_experts to be a whole number of at least 1"),
        ({"scores": "tanh"}, "expected scores to be one of softmax, sigmoid"),
        ({"balance": "hope"}, "expected balance to be one of loss, bias"),
        ({"drop": "random"}, "expected drop to be one of position, score"),
        ({"capacity_factor": 0.0}, "expected capacity_factor to be"),
        ({"jitter": 1.0}, "expected jitter to be"),
        ({"n_shared": -1}, "expected n_shared to be a whole number of at least 0"),
    ],
)
def test_a_wrong_argument_gets_one_sentence(options, sentence):
    with pytest.raises(SpecError, match=sentence) as caught:
        MixtureOfExperts(D_MODEL, D_FF, **{"n_experts": N_EXPERTS, **options})
    assert str(caught.value).startswith("MixtureOfExperts: ")


@pytest.mark.parametrize("native", [True, False])
def test_a_wrong_input_gets_one_sentence(native):
    moe = mixture(native=native)
    with pytest.raises(SpecError, match="expected a forward pass before its load"):
        moe.load  # noqa: B018
    with pytest.raises(ShapeError, match=r"expected x of shape \(..., 24\), got \(3, 25\)"):
        moe(draw(3, D_MODEL + 1))
    with pytest.raises(DataError, match="expected at least one token, got none"):
        moe(draw(0, D_MODEL))
    x = draw(6, D_MODEL)
    x[1, 3], x[4, 0] = torch.nan, torch.inf
    for mode in (torch.no_grad(), torch.enable_grad()):
        with mode, pytest.raises(DataError, match="got NaN among the router's scores of 2 of 6"):
            moe(x)
