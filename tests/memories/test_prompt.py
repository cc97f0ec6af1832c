"""Direct and full effects of memories against a model that is run without them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from tests.memories.test_recording import TEXTS, make_model, make_tokenizer
from tests.transformer.tiny_models import SMALL, tiny_config

from lamina import memories, transformer
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


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_promoted_tokens_are_those_of_what_was_added_sign_and_all(family):
    model, tokenizer = spread(family), make_tokenizer()
    outer, norm, _ = PARTS[family]
    found = memories.explain(model, tokenizer, PROMPT, k=40)
    signs = set()
    for memory in found.positions[-1].memories:
        second = model.get_submodule(outer.format(memory.layer)).weight
        value = second[memory.neuron] if family == "gpt2" else second[:, memory.neuron]
        sign = -1 if memory.coefficient < 0 else 1
        for side, found_tokens in ((sign, memory.promotes), (-sign, memory.demotes)):
            with torch.no_grad():
                logits = model.lm_head(model.get_submodule(norm)(side * value))[: len(tokenizer)]
            wanted = [tokenizer.decode([int(token)]) for token in logits.topk(3).indices]
            assert list(found_tokens) == wanted
        signs.add(sign)
    assert signs == {-1, 1}


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

    def logit(stream):
        return Readout.of(live, [7], stream[None]).logits()[0]

    told = Readout.of(live, [7], x[None]).effects(vectors, factors[None])[0]
    slow = [logit(x) - logit(x - c * v) for c, v in zip(factors, vectors, strict=True)]
    np.testing.assert_allclose(told, slow, rtol=1e-9, atol=1e-12)
    with torch.no_grad():
        assert logit(x) == pytest.approx(
            float(live.unembed(torch.tensor(x[None], dtype=torch.float32))[0, 7]), rel=1e-4
        )


OTHERS = {  # scaled logits, parallel layers, flattened rows, a final norm in the decoder, a cap
    "cohere": {"logit_scale": 0.25},
    "gpt_neox": {},
    "opt": {"ffn_dim": 40, "word_embed_proj_dim": 16},
    "gemma2": {"final_logit_softcapping": 1.0},
    "granite": {"logits_scaling": 4.0, "residual_multiplier": 1.0},
}


def make_other(family, **changes):
    torch.manual_seed(0)
    settings = {**SMALL, "num_key_value_heads": 2, **OTHERS[family], **changes}
    config = transformers.CONFIG_MAPPING[family](**settings)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.3)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("family", OTHERS)
def test_in_the_last_layer_the_direct_effect_is_the_full_one(family):
    """Nothing comes after it but the final norm and the unembedding."""
    model, tokenizer = make_other(family), make_tokenizer()
    found = memories.explain(model, tokenizer, PROMPT, answer="w3", ablate=80)
    last = [each for each in found.ablation.memories if each.layer == 1]
    assert len(last) == 40
    largest = max(abs(each.full) for each in last)
    assert largest > 1e-3
    for each in last:
        assert each.direct == pytest.approx(each.full, rel=1e-3, abs=1e-4 * largest)
    with torch.no_grad():
        logits = model(**tokenizer(PROMPT, return_tensors="pt")).logits[0, -1]
    end = found.positions[-1]
    assert end.probability == pytest.approx(float(logits.softmax(0)[end.token]), rel=1e-4)
    assert end.layers[-1].probability == pytest.approx(end.probability, rel=1e-4)
    assert end.layers[-1].predicts == end.predicts
    if family != "gemma2":  # whose logits are capped after
        assert end.logit == pytest.approx(float(logits[end.token]), rel=1e-4, abs=1e-5)


def test_models_that_scale_what_memories_add_are_refused():
    model = make_other("granite", residual_multiplier=0.2)
    with pytest.raises(SpecError, match="add their memories to the stream as they are"):
        memories.explain(model, make_tokenizer(), PROMPT)


def test_a_model_in_bfloat16_is_explained_much_as_in_float32():
    model, tokenizer = spread("llama"), make_tokenizer()
    model.to(torch.bfloat16)
    rounded = memories.explain(model, tokenizer, PROMPT, answer="w3", k=80).positions[-1]
    whole = memories.explain(model.float(), tokenizer, PROMPT, answer="w3", k=80).positions[-1]
    effects = {(m.layer, m.neuron): m.effect for m in whole.memories}
    largest = max(map(abs, effects.values()))
    told = np.array([m.effect for m in rounded.memories])
    wanted = np.array([effects[m.layer, m.neuron] for m in rounded.memories])
    assert np.median(np.abs(told - wanted)) < 0.02 * largest


def test_a_bank_adds_triggers(tmp_path):
    pytest.importorskip("duckdb")
    model, tokenizer = make_model("gpt2"), make_tokenizer()
    with memories.record(model, tokenizer, TEXTS, tmp_path / "b", layers=[1]) as bank:
        found = memories.explain(model, tokenizer, PROMPT, k=80, bank=bank)
        for memory in found.positions[-1].memories:
            if memory.layer == 0:
                assert memory.triggers == ()  # not recorded
                continue
            wanted = bank.triggers(1, memory.neuron, 3)
            assert [t.before + t.token for t in wanted] == [
                (t.before + t.token)[: -len(told)] + told
                for t, told in zip(wanted, memory.triggers, strict=True)
            ]
            assert repr(memory.triggers[0]) in str(found)
        with pytest.raises(DataError, match="expected the model with fingerprint"):
            memories.explain(make_model("llama"), tokenizer, PROMPT, bank=bank)


def test_bad_input_gets_one_sentence():
    model, tokenizer = make_model("gpt2"), make_tokenizer()
    with pytest.raises(DataError, match="prompt with a token"):
        memories.explain(model, tokenizer, "")
    with pytest.raises(DataError, match="answer with a token"):
        memories.explain(model, tokenizer, "w1", answer=" ")
    with pytest.raises(DataError, match="token of the vocabulary, got 'never'"):
        memories.explain(model, tokenizer, "w1", answer="never")
    with pytest.raises(DataError, match="at most 64 tokens, the model's positions, got 65"):
        memories.explain(model, tokenizer, "w1 " * 65)
    accelerated = make_model("llama")
    transformer.accelerate(accelerated)
    with pytest.raises(SpecError, match=r"call lamina\.transformer\.restore first"):
        memories.explain(accelerated, tokenizer, "w1")
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
