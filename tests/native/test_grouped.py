"""Grouped products against PyTorch's autograd in float64: every ISA, odd sizes, idle experts."""

import itertools

import numpy as np
import pytest
import torch
from tests.tolerances import assert_close, assert_same_bits, rounding

from lamina import _native
from lamina.core.functions import ACTIVATIONS
from lamina.core.grouped import ExpertFeedForward, Experts, ExpertWeights, GroupedLinear
from lamina.core.reference_grouped import grouped

DTYPES = ["float32", "float64"]
TORCH_ACTIVATIONS = {
    "identity": lambda z: z,
    "relu": torch.relu,
    "gelu": torch.nn.functional.gelu,
    "silu": torch.nn.functional.silu,
    "tanh": torch.tanh,
}


@pytest.fixture(params=_native.isas())
def isa(request):
    before = _native.isa()
    _native.set_isa(request.param)
    yield request.param
    _native.set_isa(before)


def draw(rng, *shape):
    """Normal numbers that float32 holds exactly."""
    return rng.normal(size=shape).astype(np.float32).astype(np.float64)


def make_weights(rng, n_experts, d_in, layers, bias=True):
    weights = []
    for d_out, _, gated in layers:
        cube = [draw(rng, n_experts, d_out, d_in) / 4 for _ in range(2)]  # a power of two: exact
        plane = [draw(rng, n_experts, d_out) if bias else None for _ in range(2)]
        weights.append(
            ExpertWeights(cube[0], plane[0], *((cube[1], plane[1]) if gated else (None, None)))
        )
        d_in = d_out
    return weights


def by_torch(layers, weights, x, experts, share, grad_y):
    """y and all gradients, one row and one expert at a time."""
    leaf = lambda a: None if a is None else torch.tensor(a, requires_grad=True)  # noqa: E731
    tensors = [[leaf(a) for a in layer] for layer in weights]
    x, share = leaf(x), leaf(share)
    rows = []
    for t, chosen in enumerate(experts):
        total = torch.zeros(layers[-1][0], dtype=torch.float64)
        for k, e in enumerate(chosen):
            h = x[t]
            for (weight, bias, gate, gate_bias), (_, activation, _) in zip(
                tensors, layers, strict=True
            ):
                z = weight[e] @ h + (0 if bias is None else bias[e])
                phi = TORCH_ACTIVATIONS[activation]
                if gate is None:
                    h = phi(z)
                else:
                    h = phi(gate[e] @ h + (0 if gate_bias is None else gate_bias[e])) * z
            total = total + share[t, k] * h
        rows.append(total)
    y = torch.stack(rows) if rows else (x.sum() + share.sum()) * torch.zeros(0, layers[-1][0])
    y.backward(torch.tensor(grad_y))
    zero = lambda a: np.zeros(a.shape) if a.grad is None else a.grad.numpy()  # noqa: E731
    grads = [[None if a is None else zero(a) for a in layer] for layer in tensors]
    return y.detach().numpy(), zero(x), zero(share), grads


SHAPES = [  # (n_experts, d_in, layers, n, top_k): panels that end early, more experts than rows
    (3, 17, [(33, "gelu", False), (40, "identity", False)], 29, 2),
    (4, 70, [(9, "silu", True), (70, "identity", False)], 21, 3),
    (9, 5, [(31, "relu", False), (3, "identity", False)], 4, 1),
    (2, 300, [(65, "relu", False)], 33, 1),
    (2, 33, [(290, "silu", True)], 15, 2),
    (1, 64, [(32, "tanh", False), (64, "gelu", True), (1, "identity", False)], 40, 1),
    (5, 1, [(1, "identity", False)], 16, 5),
    (3, 4, [(6, "gelu", False), (4, "identity", False)], 0, 2),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_forward_and_backward_match_pytorch(isa, shape, dtype, bias):
    n_experts, d_in, layers, n, top_k = shape
    rng = np.random.default_rng(0)
    weights = make_weights(rng, n_experts, d_in, layers, bias)
    x, share, grad_y = draw(rng, n, d_in), draw(rng, n, top_k), draw(rng, n, layers[-1][0])
    ids = rng.integers(0, n_experts, (n, top_k))
    y, grad_x, grad_share, grads = by_torch(layers, weights, x, ids, share, grad_y)

    experts = Experts(n_experts, d_in, layers, dtype=dtype)
    ours, passed = experts.forward(weights, x, experts=ids, share=share)
    got = experts.backward(passed, grad_y)
    fan_in = max(d_in, 64, *(d for d, _, _ in layers)) if dtype == "float64" else 1
    tolerance = 1e-5 if dtype == "float32" else rounding(np.float64, fan_in)
    assert_close(ours, y, tolerance, "y")
    assert_same_bits(experts(experts.pack(weights), x, experts=ids, share=share), ours)
    assert_close(got.x, grad_x, tolerance, "grad_x")
    assert_close(got.share, grad_share, tolerance, "grad_share")
    for layer, expected in zip(got.weights, grads, strict=True):
        for name, a, e in zip(ExpertWeights._fields, layer, expected, strict=True):
            assert (a is None) == (e is None), name
            if e is not None:
                assert_close(a, e, tolerance, f"gradient of {name}")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_the_slow_twin_matches_pytorch(shape, bias):
    n_experts, d_in, layers, n, top_k = shape
    rng = np.random.default_rng(13)
    weights = make_weights(rng, n_experts, d_in, layers, bias)
    x, share, grad_y = draw(rng, n, d_in), draw(rng, n, top_k), draw(rng, n, layers[-1][0])
    ids = rng.integers(0, n_experts, (n, top_k))
    y, grad_x, grad_share, grads = by_torch(layers, weights, x, ids, share, grad_y)
    got = grouped(layers, weights, x, ids, share, grad_y)
    tolerance = rounding(np.float64, max(d_in, 64, *(d for d, _, _ in layers)))
    for a, e in zip(got[:3], (y, grad_x, grad_share), strict=True):
        assert_close(a, e, tolerance)
    for mine, theirs in zip(got[3], grads, strict=True):
        for a, e in zip(mine, theirs, strict=True):
            assert (a is None) == (e is None)
            if e is not None:
                assert_close(a, e, tolerance)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("n", [3, 30])
def test_the_engine_matches_its_slow_twin(isa, activation, n):
    rng = np.random.default_rng(14)
    ffn = ExpertFeedForward(2, 40, 37, activation=activation, gated=True, dtype="float64")
    weights = make_weights(rng, 2, 40, ffn.layers)
    x, share, grad_y = draw(rng, n, 40), draw(rng, n, 2), draw(rng, n, 40)
    ids = rng.integers(0, 2, (n, 2))
    expected = grouped(ffn.layers, weights, x, ids, share, grad_y)
    y, passed = ffn.forward(weights, x, experts=ids, share=share)
    got = ffn.backward(passed, grad_y)
    tolerance = rounding(np.float64, 80)
    for a, e in zip((y, got.x, got.share), expected[:3], strict=True):
        assert_close(a, e, tolerance)
    for mine, theirs in zip(got.weights, expected[3], strict=True):
        for a, e in zip(mine, theirs, strict=True):
            if e is not None:
                assert_close(a, e, tolerance)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("gated", [False, True])
def test_every_activation_matches_its_formula(isa, activation, gated):
    rng = np.random.default_rng(1)
    f = ACTIVATIONS[activation]
    weights = make_weights(rng, 1, 5, [(35, activation, gated)])
    (w, b, g, c), x, grad_y = weights[0], draw(rng, 20, 5), draw(rng, 20, 35)
    layer = GroupedLinear(1, 5, 35, activation=activation, gated=gated, dtype="float64")
    y, passed = layer.forward(weights, x, offsets=[0, 20])
    got = layer.backward(passed, grad_y).weights[0]
    z = x @ w[0].T + b[0]
    inner = x @ g[0].T + c[0] if gated else z
    factor, slope = (z if gated else 1.0), grad_y * f.derivative(inner)
    tolerance = rounding(np.float64, 64)
    assert_close(y, f.value(inner) * factor, tolerance)
    if activation == "step":
        slope = np.zeros_like(slope)
    assert_close((got.gate if gated else got.weight)[0], (slope * factor).T @ x, tolerance)
    if gated:
        assert_close(got.weight[0], (grad_y * f.value(inner)).T @ x, tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "counts", [(0, 0, 700), (1, 699, 0), (505, 0, 195), (0, 1, 1), (3, 2, 1)], ids=str
)
def test_sorted_rows_of_uneven_experts(isa, counts, dtype):
    rng = np.random.default_rng(2)
    n, offsets = sum(counts), np.concatenate([[0], np.cumsum(counts)])
    weights = make_weights(rng, 3, 40, [(70, "relu", False)])
    x, grad_y = draw(rng, n, 40), draw(rng, n, 70)
    layer = GroupedLinear(3, 40, 70, activation="relu", dtype=dtype)
    y, passed = layer.forward(weights, x, offsets=offsets)
    got = layer.backward(passed, grad_y)
    tolerance = 1e-5 if dtype == "float32" else rounding(np.float64, 700)
    w, b = weights[0].weight, weights[0].bias
    for e, (i, j) in enumerate(itertools.pairwise(offsets)):
        z = x[i:j] @ w[e].T + b[e]
        delta = grad_y[i:j] * (z > 0)
        assert_close(y[i:j], np.maximum(z, 0), tolerance)
        assert_close(got.x[i:j], delta @ w[e], tolerance)
        assert_close(got.weights[0].weight[e], delta.T @ x[i:j], tolerance)
        assert_close(got.weights[0].bias[e], delta.sum(0), tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gated", [False, True])
def test_a_rows_bits_depend_on_nothing_but_the_row(isa, dtype, gated):
    rng = np.random.default_rng(3)
    n, d, d_ff, e, k = 1200, 37, 70, 3, 2
    ffn = ExpertFeedForward(e, d, d_ff, activation="silu", gated=gated, dtype=dtype)
    weights = make_weights(rng, e, d, ffn.layers)
    x, share, grad_y = (draw(rng, n, m).astype(dtype) for m in (d, k, d))
    ids = rng.integers(0, e, (n, k))
    pack = ffn.pack(weights)

    def learn(rows, n_threads):
        y, passed = ffn.forward(
            weights, x[rows], experts=ids[rows], share=share[rows], n_threads=n_threads
        )
        return y, ffn.backward(passed, grad_y[rows], n_threads=n_threads)

    everything = np.arange(n)
    y, grads = learn(everything, 1)
    for n_threads in (2, 3):
        again, grads_again = learn(everything, n_threads)
        assert_same_bits(again, y)
        assert_same_bits(grads_again.x, grads.x)
        assert_same_bits(grads_again.share, grads.share)
        assert_same_bits(grads_again.weights[0].weight, grads.weights[0].weight)
        assert_same_bits(grads_again.weights[1].bias, grads.weights[1].bias)
    for rows in ([7], [5, 4, 1199, 3], rng.permutation(n)[:611]):
        some, grads_some = learn(rows, 2)
        assert_same_bits(some, y[rows])
        assert_same_bits(grads_some.x, grads.x[rows])
        assert_same_bits(grads_some.share, grads.share[rows])
        part = ffn(pack, x[rows], experts=ids[rows], share=share[rows], n_threads=1)
        assert_same_bits(part, y[rows])


def test_a_row_of_nan_harms_no_other(isa):
    rng = np.random.default_rng(4)
    ffn = ExpertFeedForward(2, 6, 9)
    pack = ffn.pack(make_weights(rng, 2, 6, ffn.layers))
    x, ids = draw(rng, 30, 6), rng.integers(0, 2, (30, 2))
    clean = ffn(pack, x, experts=ids)
    x[11] = np.nan
    y = ffn(pack, x, experts=ids)
    assert np.isnan(y[11]).all()
    assert_same_bits(np.delete(y, 11, 0), np.delete(clean, 11, 0))


def test_inference_in_several_waves_equals_one(isa):
    rng = np.random.default_rng(5)
    # 256 KiB a row: a wave ends after the block in which 128 MiB are reached
    layer = ExpertFeedForward(2, 2, 1 << 16, activation="relu")
    weights = make_weights(rng, 2, 2, layer.layers)
    x, ids = draw(rng, 1300, 2), rng.integers(0, 2, (1300, 1))
    y, _ = layer.forward(weights, x[:600], experts=ids[:600])
    assert_same_bits(layer(layer.pack(weights), x, experts=ids)[:600], y)


def test_a_pass_can_be_used_twice_and_only_for_what_is_wanted():
    rng = np.random.default_rng(6)
    ffn = ExpertFeedForward(3, 8, 12, activation="silu", gated=True)
    weights = make_weights(rng, 3, 8, ffn.layers)
    x, ids, grad_y = draw(rng, 40, 8), rng.integers(0, 3, (40, 2)), draw(rng, 40, 8)
    _, passed = ffn.forward(weights, x, experts=ids)
    first = ffn.backward(passed, grad_y)
    assert_same_bits(ffn.backward(passed, grad_y, weights=False, share=False).x, first.x)
    assert ffn.backward(passed, grad_y, x=False).x is None
    into = [
        ExpertWeights(*(None if a is None else np.full_like(a, np.nan) for a in layer))
        for layer in first.weights
    ]
    second = ffn.backward(passed, grad_y, x=False, share=False, weights=into)
    for mine, theirs, given in zip(second.weights, first.weights, into, strict=True):
        for a, b, c in zip(mine, theirs, given, strict=True):
            assert a is c
            assert a is None or np.array_equal(a, b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", range(1, 10))
def test_streams_of_few_rows_match_the_formula_and_many_rows(isa, dtype, rows):
    """Up to eight rows take kernels of their own: whole panels, parts of one, and gates."""
    rng = np.random.default_rng(12)
    d_in, d_out, n = 75, 101, 40
    layer = GroupedLinear(2, d_in, d_out, activation="silu", gated=True, dtype=dtype)
    weights = make_weights(rng, 2, d_in, layer.layers)
    x, grad_y = draw(rng, n, d_in).astype(dtype), draw(rng, n, d_out).astype(dtype)
    y, passed = layer.forward(weights, x[:rows], offsets=[0, 0, rows])
    got = layer.backward(passed, grad_y[:rows])
    w, b, g, c = (a[1] for a in weights[0])
    f, inner, z = ACTIVATIONS["silu"], x[:rows] @ g.T + c, x[:rows] @ w.T + b
    delta_gate = grad_y[:rows] * f.derivative(inner) * z
    delta = grad_y[:rows] * f.value(inner)
    tolerance = 1e-5 if dtype == "float32" else rounding(np.float64, 2 * d_out)
    assert_close(y, f.value(inner) * z, tolerance)
    assert_close(got.x, delta @ w + delta_gate @ g, tolerance)
    for name, d in (("weight", delta), ("gate", delta_gate)):
        assert_close(getattr(got.weights[0], name)[1], d.T @ x[:rows], tolerance, name)
    many, passed = layer.forward(weights, x, offsets=[0, 0, n])
    assert_same_bits(many[:rows], y)
    assert_same_bits(layer.backward(passed, grad_y).x[:rows], got.x)


def test_idle_experts_get_zeros_or_are_left_alone(isa):
    rng = np.random.default_rng(11)
    ffn = ExpertFeedForward(4, 8, 40, activation="silu", gated=True)
    weights = make_weights(rng, 4, 8, ffn.layers)
    x, grad_y = draw(rng, 3, 8), draw(rng, 3, 8)
    _, passed = ffn.forward(weights, x, experts=[[1], [3], [1]])

    def into():
        return [
            ExpertWeights(*(None if a is None else np.full_like(a, 7.0, np.float32) for a in w))
            for w in weights
        ]

    fresh = ffn.backward(passed, grad_y)
    zeroed = ffn.backward(passed, grad_y, weights=into())
    kept = ffn.backward(passed, grad_y, weights=into(), keep_idle=True)
    for triple in zip(fresh.weights, zeroed.weights, kept.weights, strict=True):
        for a, z, k in zip(*triple, strict=True):
            if a is None:
                continue
            assert not a[[0, 2]].any()
            assert (k[[0, 2]] == 7).all()
            assert (a[[1, 3]] != 0).any()
            assert_same_bits(z, a)
            assert_same_bits(k[[1, 3]], a[[1, 3]])


@pytest.fixture(params=_native.half_isas() or [None])
def unit(request):
    if request.param is None:
        pytest.skip("this machine has neither AMX-BF16 nor AVX-512-BF16")
    before = _native.half_isa()
    _native.set_half_isa(request.param)
    yield request.param
    _native.set_half_isa(before)


def distance(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize("shape", SHAPES[:-2], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_bfloat16_is_as_near_to_pytorch_as_its_eight_bits_allow(unit, shape, bias):
    n_experts, d_in, layers, n, top_k = shape
    rng = np.random.default_rng(7)
    weights = make_weights(rng, n_experts, d_in, layers, bias)
    x, share, grad_y = draw(rng, n, d_in), draw(rng, n, top_k), draw(rng, n, layers[-1][0])
    ids = rng.integers(0, n_experts, (n, top_k))
    y, grad_x, grad_share, grads = by_torch(layers, weights, x, ids, share, grad_y)
    experts = Experts(n_experts, d_in, layers, precision="bfloat16")
    ours, passed = experts.forward(weights, x, experts=ids, share=share)
    got = experts.backward(passed, grad_y)
    assert_same_bits(experts(experts.pack(weights), x, experts=ids, share=share), ours)
    # Half a unit of 2^-8 for each of some five roundings; a relu's mask may flip besides.
    tolerance = 5 * 2**-9 if all(a != "relu" for _, a, _ in layers) else 0.05
    assert distance(ours, y) < 5 * 2**-9
    assert 0 < distance(got.x, grad_x) < tolerance
    assert distance(got.share, grad_share) < 5 * 2**-9
    for layer, expected in zip(got.weights, grads, strict=True):
        for name, a, e in zip(ExpertWeights._fields, layer, expected, strict=True):
            assert (a is None) == (e is None), name
            if e is not None:
                assert distance(a, e) < tolerance, name


def test_a_rows_bits_in_bfloat16_depend_on_nothing_but_the_row(unit):
    rng = np.random.default_rng(8)
    n, d, e, k = 1900, 37, 2, 2
    ffn = ExpertFeedForward(e, d, 70, activation="silu", gated=True, precision="bfloat16")
    weights = make_weights(rng, e, d, ffn.layers)
    x, share, grad_y = (draw(rng, n, m) for m in (d, k, d))
    ids = rng.integers(0, e, (n, k))
    y, passed = ffn.forward(weights, x, experts=ids, share=share, n_threads=1)
    grads = ffn.backward(passed, grad_y, n_threads=1)
    again = ffn.backward(passed, grad_y, n_threads=3)
    assert_same_bits(again.weights[0].gate, grads.weights[0].gate)
    assert_same_bits(again.weights[1].bias, grads.weights[1].bias)
    rows = rng.permutation(n)[:333]
    some, passed = ffn.forward(weights, x[rows], experts=ids[rows], share=share[rows], n_threads=2)
    assert_same_bits(some, y[rows])
    assert_same_bits(ffn.backward(passed, grad_y[rows]).x, grads.x[rows])


def test_bfloat16_leaves_idle_experts_without_gradient_and_nan_in_its_row(unit):
    rng = np.random.default_rng(9)
    layer = GroupedLinear(4, 40, 33, precision="bfloat16")
    weights = make_weights(rng, 4, 40, layer.layers)
    x, grad_y = draw(rng, 70, 40), draw(rng, 70, 33)
    y, passed = layer.forward(weights, x, offsets=[0, 0, 1, 1, 70])
    grads = layer.backward(passed, grad_y).weights[0]
    assert not grads.weight[[0, 2]].any()
    assert not grads.bias[[0, 2]].any()
    assert grads.weight[1].any()
    x[5] = np.nan
    broken = layer(layer.pack(weights), x, offsets=[0, 0, 1, 1, 70])
    assert np.isnan(broken[5]).all()
    assert_same_bits(np.delete(broken, 5, 0), np.delete(y, 5, 0))


def test_bfloat16_adds_up_the_blocks_of_a_crowded_expert(unit):
    rng = np.random.default_rng(10)
    layer = GroupedLinear(2, 9, 40, precision="bfloat16")
    x, grad_y = draw(rng, 1700, 9), draw(rng, 1700, 40)
    weights = make_weights(rng, 2, 9, layer.layers)
    _, passed = layer.forward(weights, x, offsets=[0, 1690, 1700])
    got = layer.backward(passed, grad_y).weights[0]
    assert distance(got.weight[0], grad_y[:1690].T @ x[:1690]) < 5 * 2**-9
    assert distance(got.bias[0], grad_y[:1690].sum(0)) < 5 * 2**-9


def bf16(a):
    """Round to the nearest bfloat16, ties to even; as float64."""
    bits = np.ascontiguousarray(a, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32).astype(np.float64)


def rounding_twin(layers, weights, e, x, grad_y):
    """y, grad_x and weights' gradients of expert e's two layers; rounds where the engine does."""
    (_, activation, gated), _ = layers
    (w, b, g, c), (w_2, b_2, _, _) = ([None if a is None else a[e] for a in p] for p in weights)
    f, h_0, d_2 = ACTIVATIONS[activation], bf16(x), bf16(grad_y)
    z = h_0 @ bf16(w).T + b
    inner = h_0 @ bf16(g).T + c if gated else z
    h_1 = bf16(f.value(inner) * (z if gated else 1.0))
    d_h = d_2 @ bf16(w_2)
    d_inner = bf16(d_h * bf16(f.derivative(inner) * (z if gated else 1.0)))
    d_z = bf16(d_h * bf16(f.value(inner))) if gated else d_inner
    d_x = d_z @ bf16(w) + (d_inner @ bf16(g) if gated else 0.0)
    first = [d_z.T @ h_0, d_z.sum(0)]
    first += [d_inner.T @ h_0, d_inner.sum(0)] if gated else [None, None]
    return h_1 @ bf16(w_2).T + b_2, d_x, [first, [d_2.T @ h_1, d_2.sum(0), None, None]]


def assert_near_twin(y, got_x, got_weights, expected, e, near):
    assert distance(y, expected[0]) < near
    assert distance(got_x, expected[1]) < near
    for layer, arrays in zip(got_weights, expected[2], strict=True):
        for name, a, want in zip(ExpertWeights._fields, layer, arrays, strict=True):
            if want is not None:
                assert distance(a[e], want) < near, name


FEW = [  # (d_in, d_out, gated): whole panels, panels that end early, longer than a strip
    (64, 96, True),
    (75, 101, True),
    (33, 17, False),
    (1, 1, True),
    (300, 1555, False),
    (18, 48, True),
]


@pytest.mark.parametrize("rows", [*range(1, 10), 15, 16, 17])
@pytest.mark.parametrize("shape", FEW, ids=str)
def test_streams_in_bfloat16_match_a_twin_that_rounds_and_many_rows(unit, shape, rows):
    """Up to sixteen rows take kernels of their own; the twin rounds where the engine does."""
    d_in, d_out, gated = shape
    rng = np.random.default_rng(15)
    n = 40
    layers = [(d_out, "silu", gated), (d_in, "identity", False)]
    experts = Experts(2, d_in, layers, precision="bfloat16")
    weights = make_weights(rng, 2, d_in, layers)
    x, grad_y = draw(rng, n, d_in), draw(rng, n, d_in)
    y, passed = experts.forward(weights, x[:rows], offsets=[0, 0, rows])
    got = experts.backward(passed, grad_y[:rows])
    packed = experts(experts.pack(weights), x[:rows], offsets=[0, 0, rows], n_threads=1)
    assert_same_bits(packed, y)

    expected = rounding_twin(layers, weights, 1, x[:rows], grad_y[:rows])
    # One factor in a sum may be rounded the other way: 2^-8 of one of the terms.
    near = 2e-3 if min(d_in, d_out) > 1 else 2**-7
    assert_near_twin(y, got.x, got.weights, expected, 1, near)
    for layer in got.weights:
        assert not any(a[0].any() for a in layer if a is not None)

    many, passed = experts.forward(weights, x, offsets=[0, 0, n])
    grad_many = experts.backward(passed, grad_y).x
    if unit == "avx512_bf16":  # the same instruction, in the same order
        assert_same_bits(many[:rows], y)
        assert_same_bits(grad_many[:rows], got.x)
    else:
        assert distance(many[:rows], y) < near
        assert distance(grad_many[:rows], got.x) < near


def test_few_rows_in_bfloat16_have_the_same_bits_on_any_number_of_threads(unit):
    rng = np.random.default_rng(16)
    ffn = ExpertFeedForward(5, 300, 530, activation="silu", gated=True, precision="bfloat16")
    weights = make_weights(rng, 5, 300, ffn.layers)
    x, share, grad_y = draw(rng, 9, 300), draw(rng, 9, 2), draw(rng, 9, 300)
    ids = rng.integers(0, 5, (9, 2))
    results = []
    for n_threads in (1, 2, 3):
        y, passed = ffn.forward(weights, x, experts=ids, share=share, n_threads=n_threads)
        g = ffn.backward(passed, grad_y, n_threads=n_threads)
        results.append([y, g.x, g.share, *(a for layer in g.weights for a in layer)])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            if a is not None:
                assert_same_bits(a, b)


@pytest.mark.parametrize("d_in", [2052, 2053])
@pytest.mark.parametrize("shift", [0, 1])
def test_gradients_larger_than_the_caches_are_those_of_smaller_ones(unit, d_in, shift):
    """Beyond 16 MiB they are stored past the caches, where rows begin at 16 bytes."""
    rng = np.random.default_rng(17)
    d_out = 2064
    layer = GroupedLinear(1, d_in, d_out, precision="bfloat16")
    weights = [ExpertWeights(np.zeros((1, d_out, d_in), np.float32))]
    x, grad_y = bf16(draw(rng, 3, d_in)), bf16(draw(rng, 3, d_out))
    _, passed = layer.forward(weights, x, offsets=[0, 3])
    into = np.full(d_out * d_in + shift + 1, 7.0, np.float32)
    place = into[shift : shift + d_out * d_in].reshape(1, d_out, d_in)
    layer.backward(passed, grad_y, weights=[ExpertWeights(place)])
    assert_close(place[0], grad_y.T @ x, 1e-6)
    assert into[-1] == 7
    assert (into[:shift] == 7).all()


@pytest.mark.parametrize("gated", [False, True])
def test_rows_wider_than_the_cache_and_in_waves_match_the_twin(unit, gated):
    """1,100 inputs of 700 rows share their reading among panels; 3,000 rows are several waves."""
    rng = np.random.default_rng(18)
    d, counts = 1100, (700, 40, 0, 1610, 650)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    layers = [(75, "gelu", gated), (d, "identity", False)]
    experts = Experts(len(counts), d, layers, precision="bfloat16")
    weights = make_weights(rng, len(counts), d, layers)
    x, grad_y = draw(rng, offsets[-1], d), draw(rng, offsets[-1], d)
    y, passed = experts.forward(weights, x, offsets=offsets)
    got = experts.backward(passed, grad_y, n_threads=1)
    assert_same_bits(experts(experts.pack(weights), x, offsets=offsets, n_threads=1), y)
    again = experts.backward(passed, grad_y, n_threads=2)
    assert_same_bits(again.x, got.x)
    assert_same_bits(again.weights[0].weight, got.weights[0].weight)
    for e in (0, 1, 3, 4):
        rows = slice(offsets[e], offsets[e + 1])
        expected = rounding_twin(layers, weights, e, x[rows], grad_y[rows])
        assert_near_twin(y[rows], got.x[rows], got.weights, expected, e, 2e-3)
    assert not got.weights[0].weight[2].any()
    few = experts(experts.pack(weights), x[-650:-640], offsets=[0, 0, 0, 0, 0, 10])
    if unit == "avx512_bf16":
        assert_same_bits(few, y[-650:-640])


def test_no_rows_in_bfloat16(unit):
    layer = GroupedLinear(2, 5, 7, activation="silu", gated=True, precision="bfloat16")
    weights = make_weights(np.random.default_rng(19), 2, 5, layer.layers)
    y, passed = layer.forward(weights, np.zeros((0, 5)), offsets=[0, 0, 0])
    got = layer.backward(passed, np.zeros((0, 7)))
    assert y.shape == (0, 7)
    assert got.x.shape == (0, 5)
    assert not any(a.any() for a in got.weights[0] if a is not None)
