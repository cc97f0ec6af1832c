"""train(precision="bfloat16"): as good as float32 on real data, refused where it cannot be had."""

import pickle

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits
from tests.tolerances import assert_same_bits

import lamina
from lamina import _native
from lamina.core.engine import bfloat16_unit

needs_unit = pytest.mark.skipif(
    not _native.half_isas(), reason="this machine has neither AMX-BF16 nor AVX-512-BF16"
)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((97, 5)).astype(np.float32)
Y = (X[:, :2] * X[:, 2:4]).astype(np.float32)


def make(**more):
    return lamina.Network(5, (24, 24), 2, rng=0, **more)


def digits():
    x, y = load_digits(return_X_y=True)
    return x / 16.0, y, 10, "softmax"


def diabetes():
    x, y = load_diabetes(return_X_y=True)
    return x / x.std(axis=0), ((y - y.mean()) / y.std())[:, None], 1, "identity"


@needs_unit
@pytest.mark.parametrize("data", [digits, diabetes])
def test_scores_equal_those_of_float32_within_the_spread_over_seeds(data):
    x, y, d_out, output = data()
    order = np.random.default_rng(0).permutation(len(x))
    held, rest = order[: len(x) // 4], order[len(x) // 4 :]
    scores = {None: [], "bfloat16": []}
    for seed in range(6):
        for precision, found in scores.items():
            net = lamina.Network(x.shape[1], (64, 64), d_out, output=output, rng=seed)
            history = lamina.train(
                net,
                x[rest],
                y[rest],
                validation=(x[held], y[held]),
                batch_size=64,
                max_epochs=12,
                precision=precision,
                rng=seed,
            )
            found.append(max(history.validation_score))
    full, half = np.array(scores[None]), np.array(scores["bfloat16"])
    assert full.mean() > (0.95 if d_out == 10 else 0.35)  # the data has been learned at all
    assert abs(half.mean() - full.mean()) < full.std(ddof=1)
    assert not np.array_equal(full, half)  # and bfloat16 was really used


@needs_unit
def test_history_says_what_was_used_and_a_run_resumes_bit_for_bit():
    whole, parts = make(), make()
    long = lamina.train(whole, X, Y, max_epochs=6, batch_size=16, precision="bfloat16", rng=1)
    assert long.precision == "bfloat16"
    assert lamina.train(make(), X, Y, max_epochs=1).precision == "float32"
    first = lamina.train(parts, X, Y, max_epochs=2, batch_size=16, precision="bfloat16", rng=1)
    first = pickle.loads(pickle.dumps(first))
    lamina.train(parts, X, Y, max_epochs=6, batch_size=16, precision="bfloat16", resume=first)
    assert_same_bits(whole.theta, parts.theta)
    with pytest.raises(lamina.SpecError, match="expected precision = 'bfloat16'"):
        lamina.train(parts, X, Y, max_epochs=6, batch_size=16, resume=first)


@needs_unit
def test_info_names_the_unit():
    found = lamina.info()
    assert found["precisions"]["bfloat16"]
    assert found["bfloat16_unit"] == bfloat16_unit() in ("amx", "avx512_bf16")


@needs_unit
@pytest.mark.parametrize("isa", ["scalar", "avx2"])
def test_an_instruction_set_without_it_is_refused(isa):
    before = lamina.info()["isa"]
    _native.set_isa(isa)
    try:
        assert not lamina.info()["precisions"]["bfloat16"]
        with pytest.raises(lamina.SpecError, match=rf"expected a processor .* got .*{isa}") as bad:
            lamina.train(make(), X, Y, precision="bfloat16")
        assert "\n" not in str(bad.value)
    finally:
        _native.set_isa(before)


@pytest.mark.skipif(bool(_native.half_isas()), reason="this machine has bfloat16")
def test_a_machine_without_it_refuses():
    with pytest.raises(lamina.SpecError, match="expected a processor with AMX-BF16"):
        lamina.train(make(), X, Y, precision="bfloat16")


@pytest.mark.parametrize(
    ("net", "more", "match"),
    [
        (make(dtype="float64"), {}, "expected a network of dtype 'float32'"),
        (make(), {"optimizer": lamina.LBFGS()}, "expected precision None with LBFGS|a processor"),
    ],
)
def test_what_cannot_be_done_in_bfloat16_is_refused(net, more, match):
    before = net.theta
    with pytest.raises(lamina.SpecError, match=match):
        lamina.train(net, X, Y, precision="bfloat16", **more)
    assert net.theta is before


NETWORKS = {
    "plain": {},
    "gelu": {"activation": "gelu"},
    "residual": {"residual": True},
    "skips": {"skips": {3: (0, 1)}},
    "dropout": {"dropout": 0.5},
    "encoded": {"encoding": lamina.Fourier(4)},
    "classes": {"output": "softmax"},
}


@needs_unit
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("n", [0, 1, 31, 33, 700])
def test_prediction_follows_float32_and_hardly_depends_on_the_batch(kind, n):
    net = lamina.Network(5, (40, 40), 3, rng=0, **NETWORKS[kind])
    x = np.random.default_rng(1).standard_normal((n, 5)).astype(np.float32)
    full, half = net(x), net(x, precision="bfloat16")
    assert half.shape == full.shape
    if n == 0:
        return
    scale = np.abs(full).max()
    assert np.abs(half - full).max() < 2**-6 * scale
    assert not np.array_equal(half, full)
    alone = np.concatenate([net(row[None], precision="bfloat16") for row in x[:40]])
    assert np.abs(alone - half[:40]).max() <= 2**-8 * scale
    out = np.empty_like(full)
    assert net(x, out, precision="bfloat16") is out
    assert_same_bits(out, half)


@needs_unit
def test_prediction_takes_up_new_parameters():
    net, other = make(), lamina.Network(5, (24, 24), 2, rng=9)
    before = net(X, precision="bfloat16")
    net.theta = other.theta
    assert_same_bits(net(X, precision="bfloat16"), other(X, precision="bfloat16"))
    lamina.train(net, X, Y, max_epochs=1, rng=0)
    after = net(X, precision="bfloat16")
    assert np.abs(after - net(X)).max() < 2**-6 * np.abs(after).max()
    assert not np.array_equal(before, after)


def test_a_prediction_in_another_precision_is_refused_or_is_the_dtype_itself():
    net = make()
    assert_same_bits(net(X, precision="float32"), net(X))
    double = make(dtype="float64")
    for wrong, precision in [(net, "float64"), (double, "bfloat16"), (net, "half")]:
        with pytest.raises(lamina.SpecError, match=r"^Network: expected .*, got .*\. .*\.$"):
            wrong(X, precision=precision)
