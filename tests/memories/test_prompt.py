"""Direct and full effects of memories against a model that is run without them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from tests.memories.test_recording import make_model, make_tokenizer
from tests.transformer.tiny_models import tiny_config

from lamina import memories
from lamina.core.errors import DataError, SpecError
from lamina.memories.final_norm import Readout
from lamina.memories.live_model import LiveModel

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

PROMPT = "w1 w2 Paris w7"
PARTS = {  # the layers, their second matrix, the final norm, the norm of what is added
    "gpt2": ("transformer.h.{}.mlp.c_proj", "transformer.ln_f", None),
    "llama": ("model.layers.{}.mlp.down_proj", "model.norm", None),
    "gemma2": (
        "model.layers.{}.mlp.down_proj",
        "model.norm",
        "model.layers.{}.post_feedforward_layernorm",
    ),
}


def spread(family):
    """A model whose effects are not tiny: norms and values away from their start."""
    model = make_model(family)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "ln_" in name:
                parameter.add_(torch.rand_like(parameter) - 0.5)
            else:
                parameter.mul_(5.0)
    return model


def logit_at(model, ids, position, token, norm=None, taken=None):
    """Run the model; `taken` is subtracted from the final norm's input at the position."""

    def take(_module, inputs):
        x = inputs[0].clone()
        x[0, position] -= taken
        return (x,)

    handle = None if taken is None else model.get_submodule(norm).register_forward_pre_hook(take)
    with torch.no_grad():
        # before a soft cap: the head alone
        seen = {}
        head = model.lm_head.register_forward_hook(lambda _m, _i, o: seen.update(o=o))
        model(torch.tensor([ids]))
        head.remove()
    if handle is not None:
        handle.remove()
    return float(seen["o"][0, position, token])


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_direct_effects_are_those_of_the_final_stream_without_the_memory(family):
    model, tokenizer = spread(family), make_tokenizer()
    ids = tokenizer(PROMPT)["input_ids"]
    outer, norm, after = PARTS[family]
    found = memories.explain(model, tokenizer, PROMPT, answer="w3", k=1000)
    assert found.answer == "w3"
    token = tokenizer.convert_tokens_to_ids("w3")
    n_checked = 0
    for position, wanted in ((3, token), (1, ids[2])):
        whole = logit_at(model, ids, position, wanted)
        explained = found.positions[position]
        assert explained.token == wanted
        assert explained.logit == pytest.approx(whole, rel=1e-4)
        effects = {(m.layer, m.neuron): m for m in explained.memories}
        for layer in range(2):
            second = model.get_submodule(outer.format(layer))
            seen = {}
            handle = second.register_forward_hook(lambda _m, i, o, s=seen: s.update(h=i[0], y=o))
            with torch.no_grad():
                model(torch.tensor([ids]))
            handle.remove()
            values = second.weight if family == "gpt2" else second.weight.T
            for neuron in range(0, len(values), 3):
                c = float(seen["h"].reshape(-1, len(values))[position, neuron])
                taken = c * values[neuron].detach()
                if after is not None:
                    y, ffn_norm = (
                        seen["y"][0, position].detach(),
                        model.get_submodule(after.format(layer)),
                    )
                    taken = (ffn_norm(y) - ffn_norm(y - taken)).detach()
                slow = whole - logit_at(model, ids, position, wanted, norm, taken)
                memory = effects[layer, neuron]
                assert memory.coefficient == pytest.approx(c, rel=1e-4, abs=1e-6)
                # float32 tells a difference of logits to some 1e-5
                assert memory.effect == pytest.approx(slow, rel=0.01, abs=1e-5 * max(1, abs(whole)))
                n_checked += abs(slow) > 1e-3 * max(1, abs(whole))
    assert n_checked > 20


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_full_effects_are_those_of_a_model_without_the_value(family):
    """Of a prompt of one token: there a value set to 0 is a memory that never fired."""
    model, tokenizer = spread(family), make_tokenizer()
    found = memories.explain(model, tokenizer, "w5", answer="w3", ablate=20)
    ids, token = tokenizer("w5")["input_ids"], tokenizer.convert_tokens_to_ids("w3")
    second = PARTS[family][0]
    with torch.no_grad():
        whole = float(model(torch.tensor([ids])).logits[0, -1, token])
        for each in found.ablation.memories[::4]:
            weight = model.get_submodule(second.format(each.layer)).weight
            row = weight[each.neuron] if family == "gpt2" else weight[:, each.neuron]
            kept = row.clone()
            row.zero_()
            without = float(model(torch.tensor([ids])).logits[0, -1, token])
            row.copy_(kept)
            assert each.full == pytest.approx(whole - without, rel=1e-3, abs=1e-5)
    direct, full = zip(*((m.direct, m.full) for m in found.ablation.memories), strict=True)
    assert found.ablation.rank_correlation == pytest.approx(spearmanr(direct, full).statistic)
    assert len(found.ablation.memories) == 20
    assert [m.direct for m in found.ablation.memories[:10]] == [
        m.effect for m in found.positions[-1].memories
    ]


def test_layers_add_up_to_the_final_stream_and_their_effects_follow_from_their_outputs():
    model, tokenizer = spread("llama"), make_tokenizer()
    found = memories.explain(model, tokenizer, PROMPT)
    with torch.no_grad():
        out = model(**tokenizer(PROMPT, return_tensors="pt"), output_hidden_states=True)
    last = found.positions[-1]
    assert last.token == int(out.logits[0, -1].argmax())
    assert last.predicts == last.target == found.answer
    assert last.probability == pytest.approx(float(out.logits[0, -1].softmax(0).max()), rel=1e-4)
    assert last.layers[-1].probability == pytest.approx(last.probability, rel=1e-4)
    logit = model.lm_head(model.model.norm(out.hidden_states[1][0, -1])).softmax(0)
    assert last.layers[0].probability == pytest.approx(float(logit[last.token].detach()), rel=1e-4)
    assert [p.target for p in found.positions[:-1]] == PROMPT.split()[1:]
    text = str(found)
    assert repr(PROMPT) in text
    assert f"{last.memories[0].effect:+.3f}" in text
    assert found.to_dict()["positions"][0]["text"] == "w1"


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_the_closed_form_is_the_norm_in_float64(family):
    model = spread(family)
    live = LiveModel.find(model, "test")
    rng = np.random.default_rng(0)
    x, vectors = rng.standard_normal(16), rng.standard_normal((40, 16))
    factors = rng.standard_normal(40)
    readout = Readout.of(live, 7, x)
    told = readout.effects(x, vectors, factors)
    slow = [
        readout.logit(x) - readout.logit(x - c * v) for c, v in zip(factors, vectors, strict=True)
    ]
    np.testing.assert_allclose(told, slow, rtol=1e-9, atol=1e-12)
    with torch.no_grad():
        assert readout.logit(x) == pytest.approx(
            float(live.unembed(torch.tensor(x[None], dtype=torch.float32))[0, 7]), rel=1e-4
        )


def test_bad_input_gets_one_sentence():
    model, tokenizer = make_model("gpt2"), make_tokenizer()
    with pytest.raises(DataError, match="prompt with a token"):
        memories.explain(model, tokenizer, "")
    with pytest.raises(DataError, match="answer with a token"):
        memories.explain(model, tokenizer, "w1", answer=" ")
    with pytest.raises(SpecError, match="k >= 1"):
        memories.explain(model, tokenizer, "w1", k=0)
    with pytest.raises(SpecError, match="norms the stream itself"):
        memories.explain(make_model("bert"), tokenizer, "w1")
    headless = transformers.AutoModel.from_config(tiny_config("llama"))
    with pytest.raises(SpecError, match="decoder with an unembedding"):
        memories.explain(headless, tokenizer, "w1")
    tokenizer.add_tokens([f"new{i}" for i in range(100)])
    with pytest.raises(DataError, match="tokenizer of at most"):
        memories.explain(model, tokenizer, "w1")
