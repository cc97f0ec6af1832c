"""An anatomy in words and columns.

``found`` is an Anatomy in every function; to import the class for its type would be a cycle.
"""

from __future__ import annotations

from typing import Any

_UNITS = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def as_text(found: Any) -> str:
    """Return the table, and below it what it says."""
    lines = [headings(found), *rows(found)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    table = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([title(found), "", *table, "", *statements(found)])


def title(found: Any) -> str:
    """Return what was taken apart."""
    return f"{found.name}: {found.n_layers} layers, {found.dtype}, a context of {found.context:,}"


def headings(found: Any) -> tuple[str, ...]:
    """Return the names of the columns."""
    first = ("role", "parameters", "share", "active", "bytes", "FLOPs a token", "share")
    return first if found.seconds is None else (*first, "time", "share")


def rows(found: Any) -> list[tuple[str, ...]]:
    """Return one row a role, and their sum."""
    total = found.seconds
    lines: list[tuple[str, ...]] = []
    for cost in found.roles:
        line: tuple[str, ...] = (
            cost.role,
            f"{cost.n_params:,}",
            percent(cost.n_params, found.n_params),
            f"{cost.n_active:,}",
            size(cost.n_bytes, "B"),
            size(cost.flops, ""),
            percent(cost.flops, found.flops),
        )
        if total is not None:
            line = (*line, duration(cost.seconds or 0.0), percent(cost.seconds or 0.0, total))
        lines.append(line)
    last: tuple[str, ...] = (
        "sum",
        f"{found.n_params:,}",
        "100.0 %",
        f"{found.n_active:,}",
        size(found.n_bytes, "B"),
        size(found.flops, ""),
        "100.0 %",
    )
    lines.append(last if total is None else (*last, duration(total), "100.0 %"))
    return lines


def statements(found: Any) -> list[str]:
    """Return what the table says: whether the MLP is two thirds, when attention costs more."""
    blocks, model = float(found.mixer_share_of_blocks), float(found.mixer_share)
    lines = [
        f"The channel mixer is {percent(blocks)} of its blocks (attention and channel mixer), "
        f"{percent(model)} of the model: {_two_thirds(blocks, model)}."
    ]
    if found.n_active < found.n_params:
        lines.append(
            f"A token uses {found.n_active:,} of {found.n_params:,} parameters "
            f"({percent(found.n_active, found.n_params)}); {percent(found.mixer_share_of_active)} "
            "of those are the channel mixer's."
        )
    if found.crossover is None:
        lines.append("Attention costs fewer FLOPs a token than the channel mixer at any context.")
    else:
        lines.append(
            f"Attention costs more FLOPs a token than the channel mixer from a context of "
            f"{found.crossover:,} on."
        )
    return [*lines, *(f"Note: {note}." for note in found.notes)]


def _two_thirds(blocks: float, model: float) -> str:
    """Say where "the MLP is two thirds of a Transformer" holds, to within a percent or two."""

    def compared(share: float) -> str:
        if abs(share - 2 / 3) < 0.02:
            return "two thirds"
        return f"{'more' if share > 2 / 3 else 'less'} than two thirds"

    if compared(blocks) == compared(model):
        return f"{compared(blocks)} of both"
    return f"{compared(blocks)} of the blocks, {compared(model)} of the model"


def size(number: float, unit: str) -> str:
    """Return a number with three digits and a prefix: 810 G."""
    for factor, prefix in _UNITS:
        if number >= factor:
            return f"{number / factor:.3g} {prefix}{unit}"
    return f"{number:.0f} {unit}".rstrip()


def percent(part: float, whole: float = 1.0) -> str:
    """Return a share."""
    return f"{100 * part / whole:.1f} %" if whole else "–"


def duration(seconds: float) -> str:
    """Return milliseconds."""
    return f"{1e3 * seconds:.2f} ms"
