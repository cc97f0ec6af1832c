"""Search by trigger text against reading every trigger."""

from __future__ import annotations

import os
import shutil
import sqlite3
from itertools import pairwise
from pathlib import Path

import pytest
from tests.memories.test_recording import TEXTS, make_model, make_tokenizer

from lamina import memories
from lamina.core.errors import DataError

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("duckdb")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded") / "b"
    memories.record(make_model("gpt2"), make_tokenizer(), TEXTS, path, top_k=6).close()
    return path


@pytest.fixture
def path(recorded, tmp_path):
    return Path(shutil.copy(recorded, tmp_path / "b"))


def by_reading(bank, words):
    """The share of each neuron's triggers in whose last 8 words these stand in a row."""
    wanted, found = words.lower().split(), {}
    for layer, d_ff in bank.d_ff.items():
        for neuron in range(d_ff):
            n = 0
            for trigger in bank.triggers(layer, neuron):
                last = (trigger.before + trigger.token).lower().split()[-8:]
                n += any(last[i : i + len(wanted)] == wanted for i in range(len(last)))
            if n:
                found[layer, neuron] = n / 6
    return found


def pair_in(texts):
    words = texts[0].split()
    return next(f"{a} {b}" for a, b in pairwise(words) if a[0] == b[0] == "w")


@pytest.mark.parametrize("few", [0, 5_000])  # looked up in memory, by the database
@pytest.mark.parametrize("words", ["Paris", "PARIS", "w7", "pair"])
def test_neurons_are_found_by_the_text_of_their_triggers(path, words, few, monkeypatch):
    monkeypatch.setattr("lamina.memories.text_search.FEW", few)
    words = pair_in(TEXTS) if words == "pair" else words
    with memories.open(path) as bank:
        wanted = by_reading(bank, words)
        found = bank.neurons_triggered_by(words, k=10**6)
        assert len(wanted) > 2
        assert {(n.layer, n.neuron): n.score for n in found} == pytest.approx(wanted)
        assert [n.score for n in found] == sorted((n.score for n in found), reverse=True)
        for k in (1, 2, 5):
            assert bank.neurons_triggered_by(words, k=k) == found[:k]


def test_the_index_is_made_once_and_anew_for_another_bank(path, tmp_path):
    index = tmp_path / "b.search"
    with memories.open(path) as bank:
        wanted = bank.neurons_triggered_by("Paris")
        stamp = index.stat().st_mtime_ns
    with memories.open(path) as bank:
        assert bank.neurons_triggered_by("Paris") == wanted
        assert index.stat().st_mtime_ns == stamp
    for wrong in (b"no database" * 500, b""):
        index.write_bytes(wrong)
        with memories.open(path) as bank:
            assert bank.neurons_triggered_by("Paris") == wanted
    with sqlite3.connect(index) as other:
        other.execute("UPDATE identity SET text = 'another'")
        other.execute("INSERT INTO places(places) VALUES ('delete-all')")
    other.close()
    with memories.open(path) as bank:
        assert bank.neurons_triggered_by("Paris") == wanted
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "b.search"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_where_nothing_can_be_written_the_index_is_in_memory(path, tmp_path):
    tmp_path.chmod(0o500)
    try:
        with memories.open(path) as bank:
            assert bank.neurons_triggered_by("Paris")
    finally:
        tmp_path.chmod(0o700)


def test_an_index_that_cannot_be_written_is_kept_in_memory(path, tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", full)
    with memories.open(path) as bank:
        assert bank.neurons_triggered_by("Paris")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b"]


@pytest.mark.parametrize("words", ['"', "", "***", "\x00"])
def test_no_word_gets_one_sentence(path, words):
    with memories.open(path) as bank, pytest.raises(DataError, match="expected a word"):
        bank.neurons_triggered_by(words)


@pytest.mark.parametrize(
    "words", ['Paris" OR "w1', "Paris OR w1", "NEAR(w1 w2)", "words:Paris", "Par*", "w1\x00w2"]
)
def test_the_query_is_words_and_never_syntax(path, words):
    with memories.open(path) as bank:
        assert bank.neurons_triggered_by(words) == []
