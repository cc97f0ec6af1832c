"""Refinement against hidden states that transformers itself returns, and layers called by hand."""

from __future__ import annotations

import numpy as np
import pytest
from tests.memories.test_recording import TEXTS, make_model, make_tokenizer
from tests.transformer.tiny_models import tiny_config

from lamina import memories
from lamina.core.errors import DataError, SpecError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def states(model, family, ids):
    """Return each layer's residual, feed-forward sum, output, coefficients > 0, and all values."""
    seen = {}
    ends = {
        "gpt2": ("transformer.h.{}.ln_2", "transformer.h.{}.mlp"),
        "llama": ("model.layers.{}.post_attention_layernorm", "model.layers.{}.mlp"),
        "gemma2": (
            "model.layers.{}.pre_feedforward_layernorm",
            "model.layers.{}.post_feedforward_layernorm",
        ),
        "bert": ("bert.encoder.layer.{}.intermediate", "bert.encoder.layer.{}.output.dense"),
    }[family]
    for layer in range(2):
        start, end = (model.get_submodule(name.format(layer)) for name in ends)
        start.register_forward_pre_hook(lambda _m, a, n=layer: seen.update({f"r{n}": a[0][0]}))
        end.register_forward_hook(lambda _m, _a, o, n=layer: seen.update({f"y{n}": o[0]}))
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    found = []
    for layer in range(2):
        r, y = seen[f"r{layer}"], seen[f"y{layer}"]
        if family == "bert":
            part = model.bert.encoder.layer[layer]
            o = part.output.LayerNorm(r + y)
            active = part.intermediate.dense(r) > 0
            values = part.output.dense.weight.T
        elif family == "gpt2":
            part = model.transformer.h[layer]
            o, active = r + y, part.mlp.c_fc(part.ln_2(r)) > 0
            values = part.mlp.c_proj.weight
        else:
            part = model.model.layers[layer]
            norm = part.get_submodule(ends[0].rsplit(".", 1)[1])
            o, active = r + y, part.mlp.gate_proj(norm(r)) > 0
            values = part.mlp.down_proj.weight.T
        found.append((r, y, o, active, values))
    return logits, found


def predict(model, family, vectors):
    if family == "bert":
        return model.cls.predictions.decoder(vectors)
    norm = model.transformer.ln_f if family == "gpt2" else model.model.norm
    return model.lm_head(norm(vectors))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "bert"])
def test_refinement_is_that_of_hidden_states_taken_by_hand(family):
    model, tokenizer = make_model(family), make_tokenizer()
    found = memories.measure_refinement(model, tokenizer, TEXTS, n_places=10**6, max_length=64)
    rows = {0: [], 1: []}
    with torch.no_grad():
        for text in TEXTS:
            logits, layers = states(model, family, tokenizer(text)["input_ids"])
            final = logits.argmax(1)
            for layer, (r, y, o, active, values) in enumerate(layers):
                before = predict(model, family, r)
                top_r, top_y, top_o, top_v = (
                    predict(model, family, x).argmax(1) for x in (r, y, o, values)
                )
                alike = top_y[:, None] == top_v
                rows[layer].append(
                    np.stack(
                        [
                            active.float().mean(1),
                            ~alike.any(1),
                            ~(alike & active).any(1),
                            top_r == final,
                            before.softmax(1)[torch.arange(len(final)), final],
                            (top_o == top_r) & (top_o != top_y),
                            (top_o == top_y) & (top_o != top_r),
                            (top_o == top_r) & (top_o == top_y),
                            (top_o != top_r) & (top_o != top_y),
                        ]
                    )
                )
    for layer, each in enumerate(found):
        wanted = np.concatenate(rows[layer], axis=1)
        assert each.n == wanted.shape[1]
        ours = [
            each.active,
            each.differs,
            each.differs_active,
            each.settled,
            each.probability,
            each.residual,
            each.ffn,
            each.agreement,
            each.composition,
        ]
        # one place in the hundreds may fall the other way by rounding
        np.testing.assert_allclose(ours, wanted.mean(1), atol=1.5 / each.n)
        assert sum(ours[5:]) == pytest.approx(1.0)


def test_places_are_drawn_once_each_and_the_same_again():
    model, tokenizer = make_model("gpt2"), make_tokenizer()
    few = memories.measure_refinement(model, tokenizer, TEXTS, n_places=20)
    assert [each.n for each in few] == [20, 20]
    assert few == memories.measure_refinement(model, tokenizer, TEXTS, n_places=20)
    assert few != memories.measure_refinement(model, tokenizer, TEXTS, n_places=20, rng=1)


def test_bad_input_gets_one_sentence():
    model, tokenizer = make_model("gpt2"), make_tokenizer()
    with pytest.raises(DataError, match="at least one token"):
        memories.measure_refinement(model, tokenizer, [])
    with pytest.raises(DataError, match="measure_refinement: expected texts of str, got bytes"):
        memories.measure_refinement(model, tokenizer, [b"w1"])
    with pytest.raises(SpecError, match="n_places >= 1"):
        memories.measure_refinement(model, tokenizer, TEXTS, n_places=0)
    headless = transformers.AutoModel.from_config(tiny_config("llama"))
    with pytest.raises(SpecError, match="with an unembedding"):
        memories.measure_refinement(headless, tokenizer, TEXTS)
