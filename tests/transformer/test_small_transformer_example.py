"""The example's models learn, compute as much as each other, and count loads rightly."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from examples import small_transformer as example  # noqa: E402

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "src" / "lamina" / "core" / "network.py").read_text(encoding="utf-8")
SHAPE = example.Shape(d_model=32, n_layers=2, n_heads=2, d_ff=32, n_experts=4, context=32, batch=8)


@pytest.fixture(scope="module")
def compared():
    torch.set_num_threads(1)
    return example.compare(TEXT, SHAPE, 200, ("dense", "loss", "bias", "none"))


def test_all_learn_more_than_frequencies(compared):
    found, _ = compared
    for run in found["models"].values():
        assert run["curve"][0][1] > run["curve"][-1][1]
        assert run["curve"][-1][1] < found["unigram_bits"] - 0.25
        assert len(run["text"]) == 300


def test_the_models_compute_as_much_for_a_token(compared):
    """By PyTorch's own counter of the dense model, and by hand of the experts."""
    from torch.utils.flop_counter import FlopCounterMode

    found, _ = compared
    dense = example.SmallTransformer(SHAPE, 100, "dense")
    for block in dense.blocks:
        block.mixer.native = False
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        dense(torch.zeros(1, 32, dtype=torch.int64))
    # the counter knows no products of attention on a CPU; they are the same in all
    products = sum(p.numel() for n, p in dense.named_parameters() if p.ndim == 2 and "pos" not in n)
    assert counter.get_total_flops() == 2 * 32 * products
    router = SHAPE.n_layers * SHAPE.d_model * SHAPE.n_experts
    active = {kind: run["n_active"] for kind, run in found["models"].items()}
    assert active["loss"] - router == active["bias"] - router == active["dense"]
    assert found["models"]["loss"]["n_params"] > found["models"]["dense"]["n_params"]
    for name in ("embedding.weight", "blocks.1.qkv.weight"):
        pair = [
            example.SmallTransformer(SHAPE, 90, kind).state_dict()[name]
            for kind in ("dense", "bias")
        ]
        assert torch.equal(*pair)


def test_loads_are_counts_of_choices_and_balancing_evens_them(compared):
    found, models = compared
    ids, alphabet = example.encode(TEXT)
    rows = list(example.batches(ids, SHAPE, 3))
    for (tokens, experts), moe in zip(
        example.routed(models["loss"], rows), models["loss"].mixtures, strict=True
    ):
        assert experts.shape == (3 * 8 * 32, 2)
        layer = example.specialisation(tokens, experts, alphabet, 4)
        assert sum(layer["load"]) == pytest.approx(4)
        assert layer["load"][1] == pytest.approx(np.mean(experts == 1) * 4)
        assert moe.router.n_experts == 4
    spread = {
        kind: max(max(layer["load"]) for layer in found["models"][kind]["layers"])
        for kind in ("loss", "bias", "none")
    }
    assert spread["loss"] < spread["none"]
    assert spread["bias"] < spread["none"]


def test_mutual_information_is_that_of_the_definition():
    tokens, experts = np.array([0, 0, 1, 1]), np.array([[0], [0], [1], [1]])
    assert example.mutual_information(tokens, experts) == pytest.approx(1.0)
    assert example.mutual_information(tokens, experts[[0, 2, 1, 3]]) == pytest.approx(0.0)
    rng = np.random.default_rng(0)
    tokens, experts = rng.integers(0, 5, 400), rng.integers(0, 3, (400, 2))
    from sklearn.metrics import mutual_info_score

    wanted = mutual_info_score(np.repeat(tokens, 2), experts.ravel()) / math.log(2)
    assert example.mutual_information(tokens, experts) == pytest.approx(wanted)


def test_what_was_found_is_printed_drawn_and_kept(compared, tmp_path):
    found, _ = compared
    text = example.report(json.loads(json.dumps(found)))
    for kind, run in found["models"].items():
        assert f"{kind:5}  {run['n_params']:10,}  {run['n_active']:9,}" in text
    example.draw(found, tmp_path)
    assert (tmp_path / "losses.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "experts_bias_1.png").read_bytes()[:4] == b"\x89PNG"


def test_a_short_text_gets_one_sentence(tmp_path):
    (tmp_path / "short").write_text("a")
    script = ROOT / "examples" / "small_transformer.py"
    command = [sys.executable, str(script), str(tmp_path / "short")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "at least 10,000 characters" in done.stderr
