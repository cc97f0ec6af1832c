"""The option --box of ``lamina prove``: low:high, one pair a dimension."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def box_option(default: str, d: int | None = None) -> Callable[[Command], Command]:
    """Return the option of a verb whose formulas have ``d`` variables, any number by default."""
    several = ", or one a variable, such as -1:1,-1:1" if d is None else ""
    return click.option(
        "--box",
        metavar="LOW:HIGH" if d == 1 else "LOW:HIGH[,…]",
        default=default,
        show_default=True,
        help=f"Where: one pair for x{several}.",
    )


def read_box(text: str, d: int, verb: str) -> list[tuple[float, float]]:
    """Return the pairs of a box; one pair stands for all d variables.

    Raises
    ------
    DataError
        The text is no such thing.
    """
    from lamina.core.errors import DataError

    try:
        pairs = [(float(a), float(b)) for a, b in (part.split(":") for part in text.split(","))]
    except ValueError:
        raise DataError(
            f"{verb}: expected --box as LOW:HIGH, one pair a variable, got {text!r}. "
            f"Write for example --box 0:1 or --box=-1:1,-1:1"
        ) from None
    return pairs * d if len(pairs) == 1 else pairs


def box_as_text(pairs: list[tuple[float, float]]) -> str:
    """Return a box as mathematics writes it: [0, 1], or [-1, 1] x [-1, 1]."""
    if len(pairs) > 1 and len(set(pairs)) == 1:
        low, high = pairs[0]
        return f"[{low:g}, {high:g}]^{len(pairs)}"
    return " x ".join(f"[{low:g}, {high:g}]" for low, high in pairs)


def rounded_up(value: float) -> str:
    """Return an upper bound with four digits, none below it."""
    return _four_digits(value, "ROUND_CEILING")


def rounded_down(value: float) -> str:
    """Return a lower bound with four digits, none above it."""
    return _four_digits(value, "ROUND_FLOOR")


def _four_digits(value: float, rounding: str) -> str:
    from decimal import Context, Decimal

    return f"{float(Context(prec=4, rounding=rounding).create_decimal(Decimal(value))):.4g}"
