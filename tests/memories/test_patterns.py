"""N-grams that triggers share, against counting words by hand."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.memories.test_recording import TEXTS, make_model, make_tokenizer

from lamina import memories
from lamina.core.errors import SpecError

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("duckdb")


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    # every 12th sequence ends alike, so that some patterns are there to be found
    texts = [text + (" w1 w2 w3" if i % 3 == 0 else "") for i, text in enumerate(TEXTS)]
    path = tmp_path_factory.mktemp("bank") / "b"
    with memories.record(make_model("gpt2"), make_tokenizer(), texts, path, top_k=8) as found:
        yield found


def last_words(trigger):
    return (trigger.before + trigger.token).split()[-8:]


def word_grams(words, n_max):
    return {tuple(words[i : i + n]) for n in range(1, n_max + 1) for i in range(len(words) - n + 1)}


def test_patterns_are_the_n_grams_that_three_triggers_hold(bank):
    n_found = 0
    for neuron in range(bank.d_ff[1]):
        rows = [last_words(t) for t in bank.triggers(1, neuron)]
        counts = Counter(gram for words in rows for gram in word_grams(words, 3))
        shared = {gram: n for gram, n in counts.items() if n >= 3}
        found = {tuple(p.text.split()): p for p in bank.patterns(1, neuron)}
        n_found += len(found)
        assert found.keys() <= shared.keys()
        for gram, n in shared.items():  # all, but those within a longer one as common
            longer = [
                g for g in found if " ".join(gram) in " ".join(g) and found[g].n_triggers == n
            ]
            assert gram in found or longer
        for gram, pattern in found.items():
            assert pattern.n_triggers == shared[gram]
            assert pattern.n_tokens == len(gram)
            ends = sum(words[-len(gram) :] == list(gram) for words in rows)
            assert pattern.at_end == ends
    assert n_found > 20


def test_lift_is_against_every_place_of_the_corpus(bank):
    """The corpus is smaller than the sample of places, so the sample is all of it."""
    sequences = [
        row[0].split() for row in bank.database.execute("SELECT text FROM sequences").fetchall()
    ]
    places = [words[max(0, i - 7) : i + 1] for words in sequences for i in range(len(words))]
    pattern = max((p for n in range(20) for p in bank.patterns(1, n)), key=lambda p: p.n_tokens)
    gram = tuple(pattern.text.split())
    often = sum(gram in word_grams(words, 3) for words in places) / len(places)
    assert pattern.lift == pytest.approx(pattern.n_triggers / 8 / often)


def test_coverage_counts_triggers_and_chance_counts_places(bank):
    for found in bank.pattern_coverage(n_neurons=1000, n_max=2):
        hits = ends = total = 0
        for neuron in range(bank.d_ff[found.layer]):
            rows = [last_words(t) for t in bank.triggers(found.layer, neuron)]
            counts = Counter(gram for words in rows for gram in word_grams(words, 2))
            tails = [{tuple(words[-n:]) for n in (1, 2) if len(words) >= n} for words in rows]
            tail_counts = Counter(gram for tail in tails for gram in tail)
            hits += sum(any(counts[g] >= 3 for g in word_grams(words, 2)) for words in rows)
            ends += sum(any(tail_counts[g] >= 3 for g in tail) for tail in tails)
            total += len(rows)
        assert found.n_neurons == bank.d_ff[found.layer]
        assert found.share == pytest.approx(hits / total)
        assert found.at_end == pytest.approx(ends / total)
        assert 0 <= found.chance_at_end < found.at_end  # a neuron's triggers are alike


def test_bad_input_gets_one_sentence(bank):
    with pytest.raises(SpecError, match="n_max of 1 to 8, got 0"):
        bank.patterns(0, 0, n_max=0)
    with pytest.raises(SpecError, match="n_neurons >= 1"):
        bank.pattern_coverage(0)
    with pytest.raises(SpecError, match="neuron below"):
        bank.patterns(0, 10**6)
