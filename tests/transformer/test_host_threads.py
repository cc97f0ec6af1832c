"""The engine's products on PyTorch's own OpenMP threads: the same bits, from anywhere."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from lamina.core.engine import bfloat16_unit, has_host, set_host
from lamina.core.grouped import ExpertFeedForward, ExpertWeights
from lamina.transformer import FeedForward, tensors

MAPS = Path("/proc/self/maps")
pytestmark = pytest.mark.skipif(
    not MAPS.exists() or "libgomp" not in MAPS.read_text(),
    reason="this PyTorch's threads are not libgomp's",
)

PRECISIONS = [None, "int8", *(["bfloat16"] if bfloat16_unit() else [])]


def product(on_host: bool, precision: str | None, n_rows: int = 300, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    ffn = ExpertFeedForward(3, 64, 160, precision=precision, on_host=on_host)
    w = [rng.normal(size=s).astype(np.float32) for s in ((3, 160, 64), (3, 64, 160))]
    pack = ffn.pack([ExpertWeights(w[0]), ExpertWeights(w[1])], n_threads=2)
    x = rng.normal(size=(n_rows, 64)).astype(np.float32)
    experts = rng.integers(0, 3, (n_rows, 2)).astype(np.int32)
    return ffn(pack, x, experts=experts, n_threads=3)


def test_there_are_pytorchs_threads():
    assert has_host()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("n_rows", [1, 300])
def test_bits_are_those_of_the_engines_own_threads(precision, n_rows):
    ours, hosts = (product(on_host, precision, n_rows) for on_host in (False, True))
    assert np.array_equal(ours, hosts)


def test_learning_gives_the_same_bits():
    rng = np.random.default_rng(0)
    x, grad = rng.normal(size=(2, 700, 64)).astype(np.float32)
    w = [rng.normal(size=s).astype(np.float32) for s in ((1, 256, 64), (1, 64, 256))]
    found = []
    for on_host in (False, True):
        ffn = ExpertFeedForward(1, 64, 256, on_host=on_host)
        weights = [ExpertWeights(w[0]), ExpertWeights(w[1])]
        y, passed = ffn.forward(weights, x, offsets=[0, 700], n_threads=2)
        gradients = ffn.backward(passed, grad, n_threads=2)
        found.append([y, gradients.x, *(layer.weight for layer in gradients.weights)])
    for ours, hosts in zip(*found, strict=True):
        assert np.array_equal(ours, hosts)


def test_several_threads_at_once():
    wanted = [product(False, None, seed=seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: product(True, None, seed=seed), [0, 1, 2, 3] * 5))
    for i, array in enumerate(found):
        assert np.array_equal(array, wanted[i % 4])


def test_within_a_team_of_pytorchs_own():
    x = torch.randn(1 << 16)
    (x + x).sum()  # the team is up
    assert np.array_equal(product(True, None), product(False, None))


def test_a_host_can_be_taken_back():
    set_host(0)
    try:
        assert not has_host()
        assert np.array_equal(product(True, None), product(False, None))
    finally:
        tensors._lend_threads()
    assert has_host()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_runs_on_threads_of_its_own():
    wanted = product(True, None)
    layer = FeedForward(32, 64).eval()
    x = torch.randn(5, 32)
    with torch.no_grad():
        y = layer(x)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with torch.no_grad():
                same = torch.equal(layer(x), y)
            code = (
                0 if same and not has_host() and np.array_equal(product(True, None), wanted) else 2
            )
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
