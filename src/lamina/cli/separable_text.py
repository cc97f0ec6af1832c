"""The words and numbers of ``lamina prove separable``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lamina.cli.exact_text import count, exact_text, formula, label, number, vector
from lamina.cli.proof import Proof

if TYPE_CHECKING:
    from lamina.cli.exact_table import ExactTable
    from lamina.theory.certificate import Separability

MOST_LINES = 30


def two_classes(r: Separability, table: ExactTable, target: str) -> Proof:
    """Return the proof of two classes."""
    low, high = (f"{target} = {label(c)}" for c in r.classes)
    head = f"{count(len(table.y), 'row')}, {count(len(table.names), 'column')}, as exact numbers."
    if r.separable:
        claim = f"No hidden layer is needed: one linear unit tells {high} from {low} on every row."
        evidence, check = _hyperplane(r, table, low, high)
    else:
        claim = f"A hidden layer, or another feature, is needed: no linear unit tells {high} from "
        claim += f"{low} on every row."
        evidence, check = _common_point(r, table, low, high)
    checked = f"Checked in fractions, without the solver: {'yes' if r.verify() else 'NO'}."
    return Proof(claim, (head, *evidence, checked), check, two_facts(r, table))


def two_facts(r: Separability, table: ExactTable) -> dict[str, Any]:
    """Return what JSON says of two classes."""
    facts: dict[str, Any] = {
        "separable": r.separable,
        "kind": r.kind,
        "negative": label(r.classes[0]),
        "positive": label(r.classes[1]),
        "columns": table.names,
        "verified": r.verify(),
    }
    if r.separable:
        return facts | {
            "weights": exact_text(r.exact_weights),
            "bias": exact_text(r.exact_bias),
            "margin": r.margin,
            "margin_squared": exact_text(r.margin_squared),
            "float_separates": r.float_separates,
        }
    facts["point"] = exact_text(r.point)
    facts["mix"] = [
        {"row": row, "class": label(name), "weight": str(weight)}
        for row, name, weight in _weights(r, table)
    ]
    if r.kind == "weak":
        facts["weak_weights"] = exact_text(r.weak_weights)
        facts["weak_bias"] = exact_text(r.weak_bias)
    return facts


def many_classes(answers: Mapping[str, Any], table: ExactTable, target: str) -> Proof:
    """Return the proof of three classes or more."""
    argmax, rest, pairs = answers["argmax"], answers["rest"], answers["pairs"]
    k = len(pairs.classes)
    if argmax.separable:
        claim = f"No hidden layer is needed: one linear layer with softmax gives all {k} classes "
        claim += f"of {target!r} on every row."
    else:
        claim = f"A hidden layer, or other features, are needed: no linear layer gives all {k} "
        claim += f"classes of {target!r} on every row."
    lines = [
        f"{count(len(table.y), 'row')}, {count(len(table.names), 'column')}, as exact numbers.",
        f"all at once (softmax, argmax): {'separable' if argmax.separable else 'not separable'}",
        f"each against the rest: {_count(rest)} separable",
        *_answers([(label(c), r) for c, r in rest.results.items()]),
        f"pairs: {_count(pairs)} separable",
        *_answers([(f"{label(p[0])} / {label(p[1])}", r) for p, r in pairs.results.items()]),
    ]
    verified = all(a.verify() for a in answers.values())
    lines.append(f"All checked in fractions, without the solver: {'yes' if verified else 'NO'}.")
    check = (
        "lamina prove separable … --json prints every hyperplane and every mix as exact fractions.",
        "A hyperplane: put each row in, the sign tells the class. A mix: both classes' rows, mixed "
        "with their weights, give one point.",
    )
    facts: dict[str, Any] = {
        "separable": argmax.separable,
        "classes": [label(c) for c in pairs.classes],
        "columns": table.names,
        "verified": verified,
        "argmax": _argmax_facts(argmax, table),
        "rest": {label(c): two_facts(r, table) for c, r in rest.results.items()},
        "pairs": [_pair_facts(r, table) for r in pairs.results.values()],
    }
    return Proof(claim, tuple(lines), check, facts)


def _hyperplane(
    r: Separability, table: ExactTable, low: str, high: str
) -> tuple[list[str], tuple[str, ...]]:
    if r.exact_weights is None or r.exact_bias is None:
        raise AssertionError("separable rows have a hyperplane")
    kind = "the largest there is" if r.support else "not the largest; --max-margin finds that"
    evidence = [
        f"f = {formula(r.exact_weights, r.exact_bias, table.names)}",
        f"f > 0 on {count(int(r.positive.sum()), 'row')} of {high}, "
        f"f < 0 on {count(int((~r.positive).sum()), 'row')} of {low}.",
        f"distance of the nearest row from f = 0: {r.margin:.6g} ({kind})",
    ]
    if not r.float_separates:
        evidence.append("Weights rounded to float64 do not separate; the exact ones do (--json).")
    check = ("Put each row into f: its sign tells the class.",)
    return evidence, check


def _common_point(
    r: Separability, table: ExactTable, low: str, high: str
) -> tuple[list[str], tuple[str, ...]]:
    if r.point is None:
        raise AssertionError("rows that are not separable have a common point")
    width = max(len(f"{row:,}") for row, _, _ in _weights(r, table))
    wide = max(len(label(name)) for name in r.classes)
    lines = [
        f"  row {row:>{width},}  {label(name):<{wide}}  weight {number(weight)}"
        for row, name, weight in _weights(r, table)
    ]
    touch = f"The best that a plane can do is to touch: {low} ≤ 0 ≤ {high} with rows on it."
    if r.kind == "weak" and r.weak_weights is not None and r.weak_bias is not None:
        plane = formula(r.weak_weights, r.weak_bias, table.names)
        weak = [touch, f"  f = {plane}"]
    else:
        weak = ["Not even a plane that touches rows of both classes does it."]
    evidence = [
        f"{len(lines)} rows, numbered from 1 without the header, mixed with these weights "
        "(those of each class sum to 1):",
        *lines,
        f"both classes give the same point: {vector(r.point)}",
        *weak,
    ]
    check = (
        f"Mix the rows of {high} with their weights, and the rows of {low} with theirs: the same "
        "point.",
        "A linear unit that is positive on the one and negative on the other would have to be "
        "both there.",
    )
    return evidence, check


def _weights(r: Separability, table: ExactTable) -> list[tuple[int, Any, Any]]:
    """Return (row in the file, class, weight) of the rows that carry weight."""
    found = []
    for mask, mix, name in (
        (r.positive, r.positive_mix, r.classes[1]),
        (~r.positive, r.negative_mix, r.classes[0]),
    ):
        rows = mask.nonzero()[0].tolist()
        found += [(i, name, w) for i, w in zip(rows, mix or (), strict=True) if w]
    return [(int(table.rows[i]), name, w) for i, name, w in found]


def _count(answer: Any) -> str:
    return f"{sum(r.separable for r in answer.results.values())} of {len(answer.results)}"


def _answers(found: list[tuple[str, Any]]) -> list[str]:
    width = max(len(name) for name, _ in found)
    lines = [
        f"  {name:<{width}}  separable, margin {r.margin:.4g}"
        if r.separable
        else f"  {name:<{width}}  not separable: {len(r.support)} rows give a common point"
        for name, r in sorted(found, key=lambda item: item[1].separable)[:MOST_LINES]
    ]
    more = len(found) - MOST_LINES
    return [*lines, f"  … and {more} more (--json)"] if more > 0 else lines


def _argmax_facts(answer: Any, table: ExactTable) -> dict[str, Any]:
    (r,) = answer.results.values()
    facts: dict[str, Any] = {"separable": r.separable}
    if r.separable:
        weights: Any = r.exact_weights
        biases: Any = r.exact_biases
        return facts | {"weights": [exact_text(w) for w in weights], "biases": exact_text(biases)}
    mix: Any = r.mix
    return facts | {
        "mix": [
            {"row": int(table.rows[i]), "against": label(answer.classes[k]), "weight": str(w)}
            for (i, k), w in mix.items()
        ]
    }


def _pair_facts(r: Any, table: ExactTable) -> dict[str, Any]:
    """Return `two_facts` of a pair, whose rows are some of the table's."""
    from dataclasses import replace

    import numpy as np

    own = np.array([y in r.classes for y in table.y])
    return two_facts(r, replace(table, x=table.x[own], y=table.y[own], rows=table.rows[own]))
