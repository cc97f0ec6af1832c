"""A recorded bank holds what a brute-force pass over the model finds."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest
from tests.transformer.tiny_models import tiny_config

from lamina import memories
from lamina.core.errors import DataError, ModelFileError, SpecError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("duckdb")

WORDS = [*(f"w{i}" for i in range(38)), "<script>", "Paris", "\x00\x1b", "é"]
TEXTS = [
    " ".join(np.random.default_rng(i).choice(WORDS, size=n)) for i, n in enumerate([30, 3, 17] * 9)
]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def make_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers

    names = ["[PAD]", "[UNK]", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(names)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")


def make_model(family: str):
    torch.manual_seed(0)
    config = tiny_config(family)
    if family == "bert":
        return transformers.BertForMaskedLM(config).eval()
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def matrices(model, family: str):
    """Return each layer's second matrix, (d_model, d_ff)."""
    if family == "gpt2":
        return [layer.mlp.c_proj.weight.T for layer in model.transformer.h]
    if family == "llama":
        return [layer.mlp.down_proj.weight for layer in model.model.layers]
    return [layer.output.dense.weight for layer in model.bert.encoder.layer]


def brute_force(model, family: str, layer: int, max_length: int):
    """Return every token's coefficients, its (sequence, token), and which are active."""
    layers = {"gpt2": "transformer.h", "llama": "model.layers", "bert": "bert.encoder.layer"}
    block = model.get_submodule(f"{layers[family]}.{layer}")
    seen = {}
    block_in = block.mlp if family != "bert" else block.intermediate
    handle = block_in.register_forward_pre_hook(lambda _m, args: seen.update(x=args[0][0]))
    tokenizer, rows, places, active, number = make_tokenizer(), [], [], [], 0
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        for start in range(0, len(ids), max_length):
            part = ids[start : start + max_length]
            with torch.no_grad():
                model(torch.tensor([part]))
                x = seen["x"]
                if family == "llama":
                    gate = x @ block.mlp.gate_proj.weight.T
                    h = torch.nn.functional.silu(gate) * (x @ block.mlp.up_proj.weight.T)
                elif family == "gpt2":
                    gate = x @ block.mlp.c_fc.weight + block.mlp.c_fc.bias
                    h = torch.nn.functional.gelu(gate, approximate="tanh")
                else:
                    dense = block.intermediate.dense
                    gate = x @ dense.weight.T + dense.bias
                    h = torch.nn.functional.gelu(gate)
            rows.append(h.numpy())
            active.append((gate > 0).numpy())
            places += [(number, i) for i in range(len(part))]
            number += 1
    handle.remove()
    return np.concatenate(rows), places, np.concatenate(active)


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_triggers_and_rates_are_those_of_brute_force(family, tmp_path):
    model = make_model(family)
    with memories.record(
        model, make_tokenizer(), TEXTS, tmp_path / "b", top_k=4, max_length=12
    ) as bank:
        for layer in range(2):
            h, places, active = brute_force(model, family, layer, 12)
            for neuron in range(0, bank.d_ff[layer], 3):
                order = np.argsort(-h[:, neuron])[:4]
                found = bank.triggers(layer, neuron)
                np.testing.assert_allclose(
                    [t.coefficient for t in found], h[order, neuron], rtol=1e-4, atol=1e-7
                )
                at = [h[places.index((t.sequence, t.position)), neuron] for t in found]
                np.testing.assert_allclose(at, h[order, neuron], rtol=1e-4, atol=1e-7)
                statistics = bank.statistics(layer, neuron)
                assert statistics["rate"] == pytest.approx(active[:, neuron].mean())
                assert statistics["mean"] == pytest.approx(h[:, neuron].mean(), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_promoted_tokens_are_the_head_of_the_norm_of_the_value(family, tmp_path):
    model = make_model(family)
    with memories.record(model, make_tokenizer(), TEXTS[:2], tmp_path / "b") as bank:
        with torch.no_grad():
            if family == "llama":
                value = model.model.layers[1].mlp.down_proj.weight[:, 5]
                logits = model.lm_head(model.model.norm(value))
            elif family == "gpt2":
                value = model.transformer.h[1].mlp.c_proj.weight[5]
                logits = model.lm_head(model.transformer.ln_f(value))
            else:
                value = model.bert.encoder.layer[1].output.dense.weight[:, 5]
                logits = model.cls.predictions.decoder(value)
        expected = torch.topk(logits[: len(make_tokenizer())], 10)
        found = bank.promotes(1, 5)
        np.testing.assert_allclose([p.logit for p in found], expected.values, rtol=1e-5, atol=1e-6)
        best = bank.neurons_promoting(found[0].text, k=200)
        assert any((n.layer, n.neuron) == (1, 5) for n in best)
        nearest = bank.neurons_along(value.detach().numpy(), k=1)[0]
        assert (nearest.layer, nearest.neuron) == (1, 5)
        assert nearest.score == pytest.approx(1.0, abs=1e-3)
        values = [m.detach().numpy().reshape(16, -1) for m in matrices(model, family)]
        unit = np.concatenate([v / np.linalg.norm(v, axis=0) for v in values], axis=1)
        cosine = unit.T @ unit[:, values[0].shape[1] + 5]
        expected = np.sort(cosine)[::-1][1:4]
        alike = bank.neurons_alike(1, 5, 3)
        np.testing.assert_allclose([n.score for n in alike], expected, atol=2e-3)


def test_chosen_layers_are_recorded_as_they_are_among_all(tmp_path):
    model, tokenizer = make_model("gpt2"), make_tokenizer()
    whole = memories.record(model, tokenizer, TEXTS[:6], tmp_path / "whole")
    with memories.record(model, tokenizer, TEXTS[:6], tmp_path / "b", layers=[1]) as bank:
        assert bank.d_ff == {1: whole.d_ff[1]}
        assert bank.triggers(1, 3) == whole.triggers(1, 3)
        assert bank.promotes(1, 3) == whole.promotes(1, 3)
        assert [a for a in whole.agreement() if a.layer == 1] == bank.agreement()
        assert (
            bank.neurons_alike(1, 3, 2)
            == [n for n in whole.neurons_alike(1, 3, 200) if n.layer == 1][:2]
        )
        with pytest.raises(SpecError, match="layer that was recorded, 1, got 0"):
            bank.triggers(0, 0)
    whole.close()
    with pytest.raises(SpecError, match="layers from 0 to 1"):
        memories.record(model, tokenizer, TEXTS, tmp_path / "c", layers=[0, 2])


def test_text_is_kept_verbatim(tmp_path):
    texts = ["w1  <script> \x00\x1b  é w2"]
    with memories.record(make_model("gpt2"), make_tokenizer(), texts, tmp_path / "b") as bank:
        for trigger in bank.triggers(0, 0):
            assert trigger.before + trigger.token + trigger.after == texts[0]
            assert trigger.token in texts[0].split()


KILLED = """
    import os, sys
    from tests.memories.test_recording import TEXTS, make_model, make_tokenizer
    from lamina import memories
    import torch
    torch.set_num_threads(1)
    memories.record(make_model("gpt2"), make_tokenizer(), TEXTS, sys.argv[1], max_length=6,
        checkpoint_every=2, progress=lambda p: p.n_sequences > 64 and os.kill(os.getpid(), 9))
"""


def test_a_killed_recording_goes_on_to_the_same_bank(tmp_path):
    path = tmp_path / "b"
    code = textwrap.dedent(KILLED)
    killed = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True)
    assert killed.returncode == -9, killed.stderr
    with pytest.raises(ModelFileError, match="being recorded"):
        memories.open(path)
    model, tokenizer, seen = make_model("gpt2"), make_tokenizer(), []
    with pytest.raises(DataError, match="texts of the interrupted"):
        memories.record(model, tokenizer, TEXTS[1:], path, max_length=6)
    with pytest.raises(DataError, match="expected to go on with"):
        memories.record(make_model("bert"), tokenizer, TEXTS, path, max_length=6)
    resumed = memories.record(model, tokenizer, TEXTS, path, max_length=6, progress=seen.append)
    assert seen[0].n_sequences == 81  # the checkpoint at 64, and one batch
    assert len(seen) == 1
    whole = memories.record(model, tokenizer, TEXTS, tmp_path / "whole", max_length=6)
    for neuron in range(5):
        assert resumed.triggers(1, neuron) == whole.triggers(1, neuron)
        assert resumed.statistics(1, neuron) == whole.statistics(1, neuron)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "whole"]


FULL = """
    import resource, sys
    from tests.memories.test_recording import TEXTS, make_model, make_tokenizer
    from lamina import LaminaError, memories
    import torch
    torch.set_num_threads(1)
    model, tokenizer, path = make_model("gpt2"), make_tokenizer(), sys.argv[1]
    def fill(done):  # no file grows any more, as on a full disk
        if done.n_sequences > 40:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))
    try:
        memories.record(model, tokenizer, TEXTS, path, max_length=6, checkpoint_every=1,
            progress=fill)
    except LaminaError as error:
        print(type(error).__name__, error)
"""


def test_a_full_disk_gets_one_sentence_and_the_recording_goes_on(tmp_path):
    path = tmp_path / "b"
    code = textwrap.dedent(FULL)
    run = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ModelFileError memories.record: expected"), done.stdout
    assert done.stdout.count("\n") == 1
    assert not path.exists()
    model, tokenizer, seen = make_model("gpt2"), make_tokenizer(), []
    resumed = memories.record(model, tokenizer, TEXTS, path, max_length=6, progress=seen.append)
    assert seen[0].n_sequences > 32  # not from the start
    whole = memories.record(model, tokenizer, TEXTS, tmp_path / "whole", max_length=6)
    for neuron in range(5):
        assert resumed.triggers(1, neuron) == whole.triggers(1, neuron)


def test_several_processes_read_one_bank(tmp_path):
    path = tmp_path / "b"
    code = "import sys; from lamina import memories; print(len(memories.open(sys.argv[1]).d_ff))"
    with memories.record(make_model("gpt2"), make_tokenizer(), TEXTS[:2], path) as bank:
        run = [sys.executable, "-c", code, str(path)]
        assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "2\n"
        assert len(bank.active_share()) == 2


def test_agreement_counts_next_tokens(tmp_path):
    with memories.record(make_model("gpt2"), make_tokenizer(), TEXTS, tmp_path / "b") as bank:
        for found in bank.agreement():
            pairs = []
            for neuron in range(bank.d_ff[found.layer]):
                best = bank.triggers(found.layer, neuron, 1)[0]
                following = best.after.split()
                if following:
                    pairs.append((bank.promotes(found.layer, neuron, 1)[0].text, following[0]))
            assert found.n == len(pairs)
            assert found.share == pytest.approx(np.mean([a == b for a, b in pairs]))
            luck = np.mean([a == b for a, _ in pairs for _, b in pairs])
            assert found.chance == pytest.approx(luck)


def test_bad_input_gets_one_sentence(tmp_path):
    model, tokenizer, path = make_model("gpt2"), make_tokenizer(), tmp_path / "b"
    with pytest.raises(SpecError, match="feed-forward"):
        memories.record(torch.nn.Linear(2, 2), tokenizer, TEXTS, path)
    with pytest.raises(DataError, match="at least one token"):
        memories.record(model, tokenizer, [], path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ModelFileError, match="no file"):
        memories.open(path)
    path.write_bytes(b"not a bank" * 1000)
    with pytest.raises(ModelFileError, match="expected a bank"):
        memories.open(path)
    with pytest.raises(DataError, match="exists"):
        memories.record(model, tokenizer, TEXTS, path)
    tokenizer.add_tokens([f"new{i}" for i in range(100)])
    with pytest.raises(DataError, match="tokenizer of at most 50"):
        memories.record(model, tokenizer, TEXTS, tmp_path / "c")


def test_a_bank_of_another_model_is_refused_with_both_fingerprints(tmp_path):
    model, path = make_model("gpt2"), tmp_path / "b"
    memories.record(model, make_tokenizer(), TEXTS[:2], path).close()
    memories.open(path, model).close()
    with torch.no_grad():
        model.transformer.h[0].mlp.c_fc.weight[0, 0] += 1
    with pytest.raises(DataError, match=r"fingerprint [0-9a-f]{24}.*got [0-9a-f]{24}"):
        memories.open(path, model)
