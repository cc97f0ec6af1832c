r"""Pages on a bank, in HTML: a neuron's card, the overview, lists; they load and run nothing.

Everything on them comes from a corpus and a vocabulary that nobody has checked, and goes through
jinja2's escaping; control characters are written out, as \\x1b.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import unicodedata
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np

from lamina.core.engine import info
from lamina.core.errors import require_extra
from lamina.core.modelfile import write_atomically
from lamina.memories.bank import Bank, Neuron, Trigger
from lamina.memories.summaries import promoted_of, strongest_by_layer, triggers_of

AROUND: Final = 120  # characters shown before and after a trigger
N_TOKENS: Final = 5  # promoted tokens in a list's row


def visible(text: str) -> str:
    """Return text with its control and direction characters written out instead of obeyed."""
    steering = ("Cc", "Cf", "Co", "Cs")
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in steering else c
        for c in text
    )


@functools.cache
def style() -> str:
    """Return the pages' style sheet."""
    return (resources.files("lamina.memories") / "pages" / "style.css").read_text(encoding="utf-8")


@functools.cache
def _environment() -> Any:
    jinja2 = require_extra("jinja2", "memories")
    folder = resources.files("lamina.memories") / "pages"

    def load(name: str) -> str:
        return (folder / name).read_text(encoding="utf-8")

    return jinja2.Environment(
        loader=jinja2.FunctionLoader(load), autoescape=True, undefined=jinja2.StrictUndefined
    )


def render(template: str, *, live: bool, **values: Any) -> str:
    """Return a page; `live` for the browser, else one that stands alone."""
    digest = base64.b64encode(hashlib.sha256(style().encode()).digest()).decode()
    page: str = (
        _environment()
        .get_template(template)
        .render(
            live=live,
            css=_markup(style()),
            css_hash=digest,
            version=info()["version"],
            **{"by": "token", **values},
        )
    )
    return page


def _markup(text: str) -> Any:
    return require_extra("markupsafe", "memories").Markup(text)


def card(bank: Bank, layer: int, neuron: int, *, live: bool = False) -> str:
    """Return the page of one neuron."""
    statistics = bank.statistics(layer, neuron)
    quantiles = list(statistics["quantiles"].values())
    promoted = bank.promotes(layer, neuron, 15)
    low = min((p.logit for p in promoted), default=0.0)
    high = max((p.logit for p in promoted), default=1.0)
    return render(
        "card.html.j2",
        live=live,
        title=f"Neuron {layer}:{neuron}",
        lead=f"Layer {layer}, memory {neuron} of {bank.d_ff[layer]:,}, on "
        f"{bank.facts['n_tokens']:,} tokens.",
        layer=layer,
        statistics={
            "rate": f"{statistics['rate']:.1%}",
            "mean": f"{statistics['mean']:.3g}",
            "median": f"{quantiles[3]:.3g}",
            "span": f"{quantiles[0]:.2g}, {quantiles[-1]:.2g}",
        },
        promoted=[
            {
                "text": visible(p.text),
                "logit": f"{p.logit:.2f}",
                "share": 0.15 + 0.85 * (p.logit - low) / ((high - low) or 1.0),
            }
            for p in promoted
        ],
        patterns=[
            {"text": visible(p.text), "n_triggers": p.n_triggers, "lift": f"{p.lift:.3g}"}
            for p in bank.patterns(layer, neuron)[:8]
        ],
        alike=[
            {**row, "score": f"{row['score']:.2f}"}
            for row in _rows(bank, bank.neurons_alike(layer, neuron, 6))
        ],
        triggers=[_shown(trigger) for trigger in bank.triggers(layer, neuron)],
    )


def overview(bank: Bank, *, live: bool = False) -> str:
    """Return the page of a whole bank."""
    active = bank.active_share()
    agreement = {each.layer: each for each in bank.agreement()}
    layers = list(bank.d_ff)
    strongest = strongest_by_layer(bank, N_TOKENS)
    promoted = promoted_of(bank, [each for best in strongest.values() for each in best], 1)
    agree = [agreement[i].share if i in agreement else 0.0 for i in layers]
    chance = [agreement[i].chance if i in agreement else 0.0 for i in layers]
    rows = [
        {
            "layer": layer,
            "neurons": f"{bank.d_ff[layer]:,}",
            "active": f"{active[i]:.1%}",
            "agree": f"{agree[i]:.2%}",
            "chance": f"{chance[i]:.3%}",
            "promotes": [
                visible(text)
                for each in strongest[layer]
                for text in promoted.get((layer, each.neuron), [])
            ],
        }
        for i, layer in enumerate(layers)
    ]
    return render(
        "overview.html.j2",
        live=live,
        title=f"Memories of {Path(bank.path).name}",
        lead=f"Model {bank.facts['model']}.",
        tiles=[
            {"name": "layers", "value": len(layers)},
            {"name": "memories", "value": f"{sum(bank.d_ff.values()):,}"},
            {"name": "tokens recorded", "value": f"{bank.facts['n_tokens']:,}"},
            {"name": "triggers of each", "value": bank.facts["top_k"]},
        ],
        layers=layers,
        step=max(1, len(layers) // 8),
        active=active,
        active_top=_top(active),
        agreement=agree,
        agreement_top=_top([*agree, *chance]),
        chance=chance,
        rows=rows,
    )


def listing(
    bank: Bank,
    found: Iterable[Neuron],
    title: str,
    score_name: str,
    words: str | None = None,
    **values: Any,
) -> str:
    """Return a page of neurons, for the browser; of their triggers one that holds the words."""
    rows = [{**row, "score": f"{row['score']:.3f}"} for row in _rows(bank, found, words)]
    lead = f"{len(rows)} neuron{'' if len(rows) == 1 else 's'}, by {score_name}." if rows else ""
    return render(
        "list.html.j2",
        live=True,
        title=visible(title),
        lead=lead,
        score_name=score_name,
        trigger_name="trigger with these words" if words else "strongest trigger",
        rows=rows,
        **{"problem": None, **values},
    )


def write_card(bank: Bank, layer: int, neuron: int, path: str | os.PathLike[str]) -> None:
    """Write a neuron's page: one HTML file that loads nothing and runs nothing.

    Raises
    ------
    SpecError
        No such layer or neuron.
    ModelFileError
        The path cannot be written.
    MissingExtraError
        jinja2 is not installed.
    """
    page = card(bank, layer, neuron).encode("utf-8", errors="replace")
    write_atomically(path, [page], "memories.write_card")


def write_overview(bank: Bank, path: str | os.PathLike[str]) -> None:
    """Write a bank's page, as `write_card` does a neuron's."""
    page = overview(bank).encode("utf-8", errors="replace")
    write_atomically(path, [page], "memories.write_overview")


def _rows(bank: Bank, found: Iterable[Neuron], words: str | None = None) -> list[dict[str, Any]]:
    neurons = list(found)
    promoted = promoted_of(bank, neurons, N_TOKENS)
    triggers = triggers_of(bank, neurons, bank.facts["top_k"] if words else 1)
    rows = []
    for each in neurons:
        place = each.layer, each.neuron
        fired = triggers.get(place, [])
        if words:
            fired.sort(key=lambda t: words.lower() not in (t.before[-AROUND:] + t.token).lower())
        rows.append(
            {
                "layer": each.layer,
                "neuron": each.neuron,
                "score": each.score,
                "promotes": [visible(text) for text in promoted.get(place, [])],
                "trigger": _shown(fired[0]) if fired else None,
            }
        )
    return rows


def _shown(trigger: Trigger) -> dict[str, str]:
    return {
        "before": visible(trigger.before[-AROUND:]),
        "token": visible(trigger.token),
        "after": visible(trigger.after[:AROUND]),
        "coefficient": f"{trigger.coefficient:.3f}",
    }


def _top(values: list[float]) -> dict[str, Any]:
    """Return a round number at or above the largest value, and how to write it."""
    largest = max(max(values, default=0.0), 1e-6)
    power = 10.0 ** np.floor(np.log10(largest))
    value = min((m * power for m in (1, 2, 5, 10) if m * power >= largest), default=largest)
    return {"value": float(value), "text": f"{value:.4g}" if value < 0.001 else f"{value:.3g}"}
