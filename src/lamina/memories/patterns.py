"""N-grams that the triggers of a neuron share: what a machine can say of the pattern of a key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from lamina.memories.bank import Bank

Gram = tuple[int, ...]

WINDOW: Final = 8  # tokens up to the trigger and with it, in which n-grams are looked for
SHARED: Final = 3  # triggers that an n-gram must stand before: the paper's rule for a pattern


@dataclass(frozen=True)
class Pattern:
    """An n-gram that several of a neuron's triggers share.

    Attributes
    ----------
    text : str
    n_tokens : int
    n_triggers : int
        Triggers within whose last tokens it stands.
    at_end : int
        Those of which it ends with the trigger itself.
    lift : float
        How many times as often as among random places of the corpus; infinite if it stands at none
        of those looked at.
    """

    text: str
    n_tokens: int
    n_triggers: int
    at_end: int
    lift: float


@dataclass(frozen=True)
class PatternCoverage:
    """How many of a layer's triggers an n-gram explains that other triggers of the neuron share.

    Attributes
    ----------
    layer : int
    n_neurons : int
        Looked at.
    share : float
        Of triggers that hold an n-gram which `SHARED` of their neuron's triggers hold.
    at_end : float
        Of triggers whose own token, or n-gram that ends with it, is shared so.
    chance, chance_at_end : float
        The same of random places of the corpus, in groups of as many.
    """

    layer: int
    n_neurons: int
    share: float
    at_end: float
    chance: float
    chance_at_end: float


def grams(ids: Sequence[int], n_max: int) -> set[Gram]:
    """Return all n-grams of 1 to n_max tokens."""
    return {tuple(ids[i : i + n]) for n in range(1, n_max + 1) for i in range(len(ids) - n + 1)}


def endings(ids: Sequence[int], n_max: int) -> set[Gram]:
    """Return the n-grams of 1 to n_max tokens that end with the last."""
    return {tuple(ids[-n:]) for n in range(1, min(n_max, len(ids)) + 1)}


def covered(group: list[list[int]], n_max: int) -> tuple[int, int]:
    """Return how many places of a group share an n-gram with enough others; at all, at the end."""
    found = []
    for of in (grams, endings):
        sets = [of(ids, n_max) for ids in group]
        counts = Counter(gram for each in sets for gram in each)
        found.append(sum(any(counts[gram] >= SHARED for gram in each) for each in sets))
    return found[0], found[1]


def shared_patterns(
    bank: Bank, layer: int, neuron: int, n_max: int, n_random: int
) -> list[Pattern]:
    """Return the n-grams that at least `SHARED` of a neuron's triggers hold, telling ones first.

    An n-gram within a longer one that as many triggers hold is left out. They are ordered by
    triggers times the logarithm of the lift.
    """
    group = bank.trigger_ids(layer, [neuron], WINDOW).get(neuron, [])
    inside = Counter(gram for ids in group for gram in grams(ids, n_max))
    at_end = Counter(gram for ids in group for gram in endings(ids, n_max))
    chosen = {gram: n for gram, n in inside.items() if n >= SHARED}
    whole = {
        gram: n
        for gram, n in chosen.items()
        if not any(
            n == m and len(other) > len(gram) and _holds(other, gram) for other, m in chosen.items()
        )
    }
    places = bank.random_ids(n_random, WINDOW)
    usual = Counter(gram for ids in places for gram in grams(ids, n_max) & whole.keys())
    texts = _texts(bank, layer, neuron, n_max)
    found = []
    for gram, n in whole.items():
        often = usual[gram] / max(len(places), 1)
        lift = n / len(group) / often if often else float("inf")
        found.append(Pattern(texts[gram], len(gram), n, at_end[gram], lift))
    ceiling = float(max(n_random, 1))
    return sorted(found, key=lambda p: (-p.n_triggers * np.log(min(p.lift, ceiling)), p.text))


def layer_coverage(
    bank: Bank, n_neurons: int, n_max: int, rng: np.random.Generator
) -> list[PatternCoverage]:
    """Return each layer's coverage, of a sample of its neurons, beside chance."""
    top_k = int(bank.facts["top_k"])
    places = bank.random_ids(n_neurons * top_k, WINDOW)
    luck = _share([places[i : i + top_k] for i in range(0, len(places), top_k)], n_max)
    found = []
    for layer, d_ff in bank.d_ff.items():
        chosen = np.sort(rng.choice(d_ff, min(n_neurons, d_ff), replace=False)).tolist()
        groups = bank.trigger_ids(layer, chosen, WINDOW)
        found.append(
            PatternCoverage(layer, len(chosen), *_share(list(groups.values()), n_max), *luck)
        )
    return found


def _share(groups: list[list[list[int]]], n_max: int) -> tuple[float, float]:
    n = sum(map(len, groups))
    hits = [covered(group, n_max) for group in groups]
    return sum(a for a, _ in hits) / max(n, 1), sum(b for _, b in hits) / max(n, 1)


def _texts(bank: Bank, layer: int, neuron: int, n_max: int) -> dict[Gram, str]:
    """Return the n-grams before a neuron's triggers as they stand in the corpus, verbatim."""
    found: dict[Gram, str] = {}
    for trigger in bank.triggers(layer, neuron):
        ids, starts, ends = bank.tokens_before(trigger, WINDOW)
        text = trigger.before + trigger.token + trigger.after
        for n in range(1, n_max + 1):
            for i in range(len(ids) - n + 1):
                found.setdefault(tuple(ids[i : i + n]), text[starts[i] : ends[i + n - 1]])
    return found


def _holds(long: Gram, short: Gram) -> bool:
    n = len(short)
    return any(long[i : i + n] == short for i in range(len(long) - n + 1))
