"""Exact numbers as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from lamina.cli.console import one_line
from lamina.theory.exact import to_float

MOST_TERMS = 12


def number(value: Fraction) -> str:
    """Return a fraction in full if that is short, else as "≈" and six digits."""
    exact = str(value)
    if len(exact) <= 12:
        decimal = f"{float(value):.10g}"
        return decimal if Fraction(decimal) == value and "e" not in decimal else exact
    try:
        return f"≈{float(value):.6g}"
    except OverflowError:
        return f"≈10^{len(exact.partition('/')[0]) - len(exact.partition('/')[2])}"


def count(n: int, what: str) -> str:
    """Return "1 row" or "2,000 rows"."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def label(value: object) -> str:
    """Return a class as text."""
    if not isinstance(value, Fraction):
        return one_line(str(value))
    return str(value.numerator) if value.denominator == 1 else str(to_float(value))


def formula(weights: Sequence[Fraction], bias: Fraction, names: Sequence[str]) -> str:
    """Return ``w·x + b`` with the names of the columns; columns of weight 0 are left out."""
    terms = [(w, name) for w, name in zip(weights, names, strict=True) if w]
    terms.sort(key=lambda term: -abs(term[0]))
    parts = [f"{_sign(w, i == 0)}{_times(abs(w))}{one_line(n)}" for i, (w, n) in enumerate(terms)]
    more = len(parts) - MOST_TERMS
    if more > 0:
        parts = [*parts[:MOST_TERMS], f"+ … {more} more columns (--json lists them)"]
    if bias:
        parts.append(f"{_sign(bias, not parts)}{number(abs(bias))}")
    return " ".join(parts) or "0"


def vector(values: Sequence[Fraction]) -> str:
    """Return a point as "(1/2, 0, …)"."""
    shown = [number(v) for v in values[:MOST_TERMS]]
    more = len(values) - MOST_TERMS
    return f"({', '.join(shown)}{f', … {more} more' if more > 0 else ''})"


def exact_text(values: Sequence[Fraction] | Fraction | None) -> Any:
    """Return fractions as text, for JSON."""
    if values is None:
        return None
    return str(values) if isinstance(values, Fraction) else [str(v) for v in values]


def _sign(value: Fraction, first: bool) -> str:
    if first:
        return "−" if value < 0 else ""
    return "− " if value < 0 else "+ "


def _times(value: Fraction) -> str:
    return "" if value == 1 else f"{number(value)}·"
