"""Keys from text against hidden states taken by hand."""

from __future__ import annotations

import numpy as np
import pytest
from tests.memories.test_recording import TEXTS, make_model, make_tokenizer

from lamina import memories, transformer
from lamina.core.errors import DataError, SpecError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.mark.parametrize(
    ("family", "before"),
    [
        ("gpt2", "transformer.h.1.ln_2"),
        ("llama", "model.layers.1.post_attention_layernorm"),
        ("bert", "bert.encoder.layer.1.attention"),
    ],
)
def test_keys_are_what_the_layer_reads(family, before):
    model, tokenizer = make_model(family), make_tokenizer()
    keys = memories.keys_from_text(model, tokenizer, TEXTS[:5], 1, unit=False)
    for key, text in zip(keys, TEXTS, strict=False):
        seen = {}
        module = model.get_submodule(before)
        handle = module.register_forward_hook(lambda _m, _i, o, s=seen: s.update(o=o))
        with torch.no_grad():
            model(**tokenizer(text, return_tensors="pt"))
        handle.remove()
        wanted = seen["o"][0] if isinstance(seen["o"], tuple) else seen["o"]
        np.testing.assert_allclose(key, wanted[0, -1].numpy(), rtol=1e-5, atol=1e-6)
    unit = memories.keys_from_text(model, tokenizer, TEXTS[:5], 1)
    np.testing.assert_allclose(unit, keys / np.linalg.norm(keys, axis=1, keepdims=True), rtol=1e-5)


def test_texts_are_stored_and_recalled_by_their_own_keys():
    model, tokenizer = make_model("llama"), make_tokenizer()
    texts = [f"w{i} w{j}" for i in range(30) for j in range(30)]
    keys = memories.keys_from_text(model, tokenizer, texts, 1)
    values = np.random.default_rng(0).standard_normal((len(texts), 8))
    memory = memories.KeyValueMemory.store(keys, values)
    assert memories.measure_recall(memory, keys, values) >= 0.99


def test_bad_input_gets_one_sentence():
    model, tokenizer = make_model("gpt2"), make_tokenizer()
    with pytest.raises(SpecError, match="layer from 0 to 1, got 2"):
        memories.keys_from_text(model, tokenizer, ["w1"], 2)
    with pytest.raises(DataError, match="at least one text"):
        memories.keys_from_text(model, tokenizer, [], 0)
    with pytest.raises(DataError, match="a token each, got ''"):
        memories.keys_from_text(model, tokenizer, ["w1", ""], 0)
    with pytest.raises(DataError, match="texts of str, got bytes"):
        memories.keys_from_text(model, tokenizer, [b"w1"], 0)
    with pytest.raises(DataError, match="at most 64 tokens, the model's positions, got 65"):
        memories.keys_from_text(model, tokenizer, ["w1 " * 65], 0)
    accelerated = make_model("llama")
    transformer.accelerate(accelerated)
    with pytest.raises(SpecError, match=r"call lamina\.transformer\.restore first"):
        memories.keys_from_text(accelerated, tokenizer, ["w1"], 0)
