"""Triggers and promoted tokens of many neurons in one query each: pages list a hundred."""

from __future__ import annotations

from collections.abc import Sequence

from lamina.memories.bank import Bank, Neuron, Trigger

Place = tuple[int, int]

_WANTED = "(SELECT unnest(?) AS layer, unnest(?) AS neuron) w"


def triggers_of(bank: Bank, neurons: Sequence[Neuron], k: int) -> dict[Place, list[Trigger]]:
    """Return the strongest k triggers of each neuron, by layer and neuron."""
    rows = bank.rows(
        "SELECT t.layer, t.neuron, t.coefficient, t.sequence, t.token, s.text, "
        "s.starts[t.token + 1], s.ends[t.token + 1] FROM triggers t "
        f"JOIN {_WANTED} ON t.layer = w.layer AND t.neuron = w.neuron "
        "JOIN sequences s USING (sequence) WHERE t.rank < ? ORDER BY t.layer, t.neuron, t.rank",
        [*_columns(neurons), k],
    )
    found: dict[Place, list[Trigger]] = {}
    for layer, neuron, coefficient, sequence, position, text, start, end in rows:
        trigger = Trigger(
            text[:start], text[start:end], text[end:], coefficient, sequence, position
        )
        found.setdefault((layer, neuron), []).append(trigger)
    return found


def promoted_of(bank: Bank, neurons: Sequence[Neuron], k: int) -> dict[Place, list[str]]:
    """Return the texts of the first k tokens that each neuron's value promotes."""
    rows = bank.rows(
        "SELECT p.layer, p.neuron, v.text FROM promoted p "
        f"JOIN {_WANTED} ON p.layer = w.layer AND p.neuron = w.neuron "
        "JOIN vocabulary v USING (token) WHERE p.rank < ? ORDER BY p.layer, p.neuron, p.rank",
        [*_columns(neurons), k],
    )
    found: dict[Place, list[str]] = {}
    for layer, neuron, text in rows:
        found.setdefault((layer, neuron), []).append(text)
    return found


def strongest_by_layer(bank: Bank, k: int) -> dict[int, list[Neuron]]:
    """Return of each layer what `Bank.strongest` does."""
    rows = bank.rows(
        "SELECT layer, neuron, coefficient FROM triggers WHERE rank = 0 "
        "QUALIFY row_number() OVER (PARTITION BY layer ORDER BY coefficient DESC, neuron) <= ? "
        "ORDER BY layer, coefficient DESC, neuron",
        [k],
    )
    found: dict[int, list[Neuron]] = {layer: [] for layer in bank.d_ff}
    for row in rows:
        found[row[0]].append(Neuron(*row))
    return found


def _columns(neurons: Sequence[Neuron]) -> list[list[int]]:
    """Return the layers and the neurons of each, once."""
    places = sorted({(each.layer, each.neuron) for each in neurons})
    return [[layer for layer, _ in places], [neuron for _, neuron in places]]
