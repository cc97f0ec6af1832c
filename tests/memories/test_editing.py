"""Edits against matrix arithmetic done by hand; undo and patches to the bit."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from tests.memories.test_recording import TEXTS, make_model, make_tokenizer, matrices

from lamina import memories
from lamina.core.errors import DataError, ModelFileError, ShapeError, SpecError
from lamina.memories.live_model import LiveModel

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

FAMILIES = ["gpt2", "llama", "bert"]


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("family", FAMILIES)
def test_edits_change_one_value_and_are_undone_to_the_bit(family):
    model = make_model(family)
    origin, old = weights(model), matrices(model, family)[1].detach().clone()
    editor = memories.Editor(model, make_tokenizer())
    value = np.random.default_rng(0).standard_normal(16).astype(np.float32)
    wanted = old.clone()
    for make, column in (
        (lambda: editor.set(1, 3, value), torch.from_numpy(value)),
        (lambda: editor.boost(1, 5, -1.5), old[:, 5] * -1.5),
        (lambda: editor.silence(1, 0), torch.zeros(16)),
        (lambda: editor.boost(1, 3, 2.0), torch.from_numpy(value) * 2),
    ):
        edit = make()
        wanted[:, edit.neuron] = column
        torch.testing.assert_close(matrices(model, family)[1].detach(), wanted, rtol=1e-6, atol=0)
    changed = {name for name, t in weights(model).items() if not torch.equal(t, origin[name])}
    assert len(changed) == 1
    assert [edit.number for edit in editor.edits] == [1, 2, 3, 4]
    assert str(editor.edits[2]) == "3. silence 1:0"
    assert editor.undo().kind == "boost"
    torch.testing.assert_close(matrices(model, family)[1][:, 3].detach(), torch.from_numpy(value))
    editor.undo_all()
    assert same(weights(model), origin)
    with pytest.raises(SpecError, match="an edit to undo, got none"):
        editor.undo()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_replaced_value_promotes_the_token(family, tmp_path):
    model, tokenizer = make_model(family), make_tokenizer()
    old = float(matrices(model, family)[0].detach()[:, 4].norm())
    memories.Editor(model, tokenizer).replace(0, 4, "Paris", strength=2.0)
    value = matrices(model, family)[0].detach()[:, 4]
    assert float(value.norm()) == pytest.approx(2 * old, rel=1e-5)
    with torch.no_grad():
        logits = LiveModel.find(model, "test").unembed(value[None])[0]
    token = tokenizer.convert_tokens_to_ids("Paris")
    assert (
        int((logits > logits[token]).sum()) < 3
    )  # rows of a random unembedding are not alike long


def taught(family="llama"):
    """A model that says w9 after each of these prompts, by some steps of training."""
    model, tokenizer = make_model(family), make_tokenizer()
    prompts = [f"w1 w2 w{i}" for i in range(10, 30)]
    ids = tokenizer(prompts, return_tensors="pt")["input_ids"]
    answer = tokenizer.convert_tokens_to_ids("w9")
    adam = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(
            model(input_ids=ids).logits[:, -1], torch.full((len(ids),), answer)
        )
        adam.zero_grad()
        loss.backward()
        adam.step()
    model.zero_grad(set_to_none=True)
    return model, tokenizer


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_fact_is_inserted_reported_and_undone(family):
    model, tokenizer = taught(family)
    origin = weights(model)
    editor = memories.Editor(model, tokenizer)
    covariance = memories.key_covariance(model, tokenizer, TEXTS, 0)
    fact = memories.Fact("w1 w2 w20", "w5", ("w3 w1 w2 w20",), (("w1 w2 w11", "w9"),))
    # values of a tiny model are short beside the stream
    settings = memories.RomeSettings(clamp=1e4, decay=0.0, n_steps=150)
    edit = editor.insert_fact(
        fact.prompt, "w20", fact.answer, layer=0, covariance=covariance, settings=settings
    )
    assert (edit.kind, edit.neuron) == ("fact", None)
    report = editor.report(fact, TEXTS)
    assert report.before.answer.says == "w9"
    assert report.success, str(report)
    assert report.after.answer.probability > 5 * report.before.answer.probability
    assert report.before.neighbours[0].rank == 0
    assert "perplexity" in str(report)
    changed = {name for name, t in weights(model).items() if not torch.equal(t, origin[name])}
    assert len(changed) == 1
    assert all(parameter.grad is None for parameter in model.parameters())
    editor.undo()
    assert same(weights(model), origin)


def test_the_change_is_the_least_that_gives_the_key_its_value():
    """Against equality-constrained least squares: min tr(D C D^T) such that D k = d."""
    model, tokenizer = make_model("llama"), make_tokenizer()
    editor = memories.Editor(model, tokenizer)
    covariance = memories.key_covariance(model, tokenizer, TEXTS, 0)
    settings = memories.RomeSettings(prefixes=("",), n_steps=5)
    before = matrices(model, "llama")[0].detach().double().numpy()
    seen = {}
    second = model.model.layers[0].mlp.down_proj
    handle = second.register_forward_hook(lambda _m, i, o: seen.update(k=i[0][0, 1], v=o[0, 1]))
    model(**tokenizer("w20 w1 w2", return_tensors="pt"))
    handle.remove()
    editor.insert_fact("w20 w1 w2", "w1", "w5", layer=0, covariance=covariance, settings=settings)
    change = matrices(model, "llama")[0].detach().double().numpy() - before
    key = seen["k"].detach().double().numpy()
    gained = change @ key
    ridge = covariance + 1e-4 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    # Lagrange: [C k; k^T 0] [D_row; l] = [0; d_row]
    n = len(key)
    system = np.block([[ridge, key[:, None]], [key[None], np.zeros((1, 1))]])
    rows = np.stack([np.linalg.solve(system, np.r_[np.zeros(n), d])[:n] for d in gained])
    np.testing.assert_allclose(change, rows, atol=1e-3 * np.abs(rows).max())
    assert np.linalg.norm(gained) > 1e-3


def test_the_covariance_is_that_of_keys_taken_by_hand():
    model, tokenizer = make_model("gpt2"), make_tokenizer()
    keys = []
    second = model.transformer.h[1].mlp.c_proj
    handle = second.register_forward_pre_hook(lambda _m, i: keys.append(i[0].reshape(-1, 64)))
    found = memories.key_covariance(model, tokenizer, TEXTS[:4], 1)
    keys.clear()
    with torch.no_grad():
        for text in TEXTS[:4]:
            model(**tokenizer(text, return_tensors="pt"))
    handle.remove()
    rows = torch.cat(keys).double().numpy()
    np.testing.assert_allclose(found, rows.T @ rows / len(rows), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_patch_gives_a_fresh_model_the_same_bits(family, tmp_path):
    model, tokenizer, path = make_model(family), make_tokenizer(), tmp_path / "p"
    editor = memories.Editor(model, tokenizer)
    editor.boost(1, 3, 3.0)
    editor.insert_fact("w20 w1 w2", "w20", "w5", layer=1)
    editor.silence(0, 2)
    editor.save(path)
    fresh = make_model(family)
    again = memories.apply_patch(fresh, path)
    assert same(weights(fresh), weights(model))
    assert [str(edit) for edit in again.edits] == [str(edit) for edit in editor.edits]
    assert path.stat().st_size < 20_000
    again.undo_all()
    assert same(weights(fresh), weights(make_model(family)))


def test_a_patch_of_another_model_is_refused_with_both_fingerprints(tmp_path):
    path = tmp_path / "p"
    editor = memories.Editor(make_model("gpt2"))
    editor.silence(0, 2)
    editor.save(path)
    other = make_model("gpt2")
    with torch.no_grad():
        other.transformer.h[0].mlp.c_fc.weight[0, 0] += 1
    origin = weights(other)
    with pytest.raises(DataError, match=r"fingerprint [0-9a-f]{24}.*got [0-9a-f]{24}"):
        memories.apply_patch(other, path)
    assert same(weights(other), origin)


def test_a_damaged_patch_gets_one_sentence_and_changes_nothing(tmp_path):
    path, bad = tmp_path / "p", tmp_path / "bad"
    editor = memories.Editor(make_model("gpt2"))
    editor.silence(0, 2)
    editor.save(path)
    model = make_model("gpt2")
    origin = weights(model)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for i in range(150):  # any byte, and any end
        wrong = bytearray(data)
        if i % 3:
            wrong[rng.integers(len(wrong))] ^= 1 << rng.integers(8)
        else:
            wrong = wrong[: rng.integers(len(wrong))]
        bad.write_bytes(wrong)
        with contextlib.suppress(ModelFileError, DataError):
            memories.apply_patch(model, bad).undo_all()
        assert same(weights(model), origin)
    with pytest.raises(ModelFileError, match="no file"):
        memories.apply_patch(model, tmp_path / "none")
    tensors = load_file(path)
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    document = json.loads(metadata["patch"])
    for change, message in (
        ({"version": 9}, "format version 9"),
        ({"edits": [{**document["edits"][0], "layer": 7}]}, "layer 7 of 2"),
        ({"edits": [{**document["edits"][0], "neuron": -1}]}, "neuron -1"),
        ({"edits": [{**document["edits"][0], "kind": "x"}]}, "kind 'x'"),
        ({"after": "0" * 24}, "were undone"),
    ):
        save_file(tensors, bad, {**metadata, "patch": json.dumps({**document, **change})})
        with pytest.raises((ModelFileError, DataError), match=message):
            memories.apply_patch(model, bad)
        assert same(weights(model), origin)
    save_file({"0.0": torch.zeros(5)}, bad, metadata)
    with pytest.raises(ModelFileError, match=r"shape \[5\], not \[16\]"):
        memories.apply_patch(model, bad)
    with pytest.raises(ModelFileError):
        editor.save(tmp_path / "no" / "folder" / "p")


def test_bad_input_gets_one_sentence():
    model, tokenizer = make_model("gpt2"), make_tokenizer()
    editor = memories.Editor(model, tokenizer)
    with pytest.raises(SpecError, match="layer below 2 and a neuron below 64, got layer 2"):
        editor.silence(2, 0)
    with pytest.raises(SpecError, match="neuron -1"):
        editor.boost(0, -1, 2)
    with pytest.raises(ShapeError, match="value of 16 numbers"):
        editor.set(0, 0, [1.0])
    with pytest.raises(DataError, match="finite numbers"):
        editor.set(0, 0, [np.nan] * 16)
    with pytest.raises(DataError, match="finite factor"):
        editor.boost(0, 0, np.inf)
    with pytest.raises(DataError, match="text with a token, got ' '"):
        editor.replace(0, 0, " ")
    with pytest.raises(DataError, match="part of the prompt 'w1 w2', got 'w3'"):
        editor.insert_fact("w1 w2", "w3", "w4")
    with pytest.raises(DataError, match="text with a token, got ''"):
        editor.insert_fact("w1 w2", "w1", "")
    with pytest.raises(ShapeError, match="covariance of shape"):
        editor.insert_fact("w1 w2", "w1", "w3", covariance=np.eye(3))
    with pytest.raises(SpecError, match="an editor with a tokenizer"):
        memories.Editor(model).replace(0, 0, "w1")
    with pytest.raises(SpecError, match="feed-forward"):
        memories.Editor(torch.nn.Linear(2, 2))
    with pytest.raises(DataError, match="at least one token"):
        memories.key_covariance(model, tokenizer, [], 0)
    with pytest.raises(SpecError, match="layer below 2"):
        memories.key_covariance(model, tokenizer, TEXTS, 5)
    assert editor.edits == ()
