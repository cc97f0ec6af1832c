"""``lamina prove separable``: whether the classes of a table need a hidden layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lamina.cli.console import json_option, note
from lamina.cli.proof import check_plot, plot_option, show

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@click.command("separable", epilog="Example: lamina prove separable iris.csv --target species")
@click.argument("table", nargs=-1, required=True)
@click.option("--target", required=True, metavar="COLUMN", help="The column of classes.")
@click.option(
    "--drop",
    multiple=True,
    metavar="COLUMN",
    help="A column to leave out, such as an identifier; may be repeated.",
)
@click.option(
    "--max-margin", is_flag=True, help="Find the hyperplane of maximum margin, exactly (slower)."
)
@json_option
@plot_option
def command(
    table: tuple[str, ...],
    target: str,
    drop: tuple[str, ...],
    max_margin: bool,
    as_json: bool,
    plot: str | None,
) -> None:
    """Decide whether the classes of a table need a hidden layer, and prove it.

    TABLE is one or more csv, tsv, parquet, jsonl or feather files, a folder of them, or - for csv
    from standard input. Text is read as exact decimals. Categories become columns of 0 and 1, and
    rows with missing values are left out; both are said.

    Two classes get a hyperplane, or a point that both convex hulls share. More classes are asked
    in pairs, each against the rest, and all at once, as a linear layer with softmax does.
    """
    from lamina.cli.exact_table import read_exact
    from lamina.cli.separable_text import many_classes, two_classes
    from lamina.core.errors import DataError

    verb = "prove separable"
    check_plot(plot, verb)
    rows = read_exact(table, target, drop, verb)
    n_classes = len(set(rows.y.tolist()))
    if n_classes < 2:
        raise DataError(
            f"{verb}: expected two classes or more in {target!r}, got {n_classes} in "
            f"{len(rows.y):,} complete rows. Name another column, or add rows of another class."
        )
    for text in rows.notes:
        note(text)
    if n_classes == 2:
        from lamina.theory.linear_separability import separability

        one = separability(rows.x, rows.y, max_margin=max_margin)
        proof = two_classes(one, rows, target)
        show(proof, as_json, plot, verb, lambda: _draw_two(one, rows.names))
        return
    from lamina.theory.classes import separability_by_class

    answers = {
        how: separability_by_class(rows.x, rows.y, how, max_margin=max_margin)
        for how in ("argmax", "rest", "pairs")
    }
    proof = many_classes(answers, rows, target)
    show(proof, as_json, plot, verb, lambda: _draw_many(answers["pairs"]))


def _draw_two(r: Any, names: list[str]) -> Figure:
    """Draw two columns as they are; of more the distances, or two directions of most variance."""
    import numpy as np

    from lamina.cli.exact_text import label
    from lamina.core.errors import DataError
    from lamina.plots.separability import plot_common_point, plot_distances, plot_line
    from lamina.theory.exact import to_float

    x = np.array([[to_float(v) for v in row] for row in r.points.values])
    if not np.isfinite(x).all():
        raise DataError("prove separable: expected numbers that a float64 holds for --plot.")
    classes = tuple(map(label, r.classes))
    if r.separable:
        if x.shape[1] == 2:
            return plot_line(
                x, r.positive, r.weights, r.bias, r.margin, classes=classes, names=names
            )
        distances = (x @ r.weights + r.bias) / np.linalg.norm(r.weights)
        return plot_distances(distances, r.positive, classes=classes)
    mix = np.empty(len(x))
    mix[r.positive], mix[~r.positive] = np.asarray(r.positive_mix), np.asarray(r.negative_mix)
    point = np.asarray(r.point)
    if x.shape[1] == 1:
        x, point = np.column_stack([x, np.zeros(len(x))]), np.array([point[0], 0.0])
        names = [names[0], ""]
    elif x.shape[1] > 2:
        centre = x.mean(axis=0)
        plane = np.linalg.svd(x - centre, full_matrices=False)[2][:2].T  # (d, 2)
        x, point = (x - centre) @ plane, (point - centre) @ plane
        names = ["first principal direction", "second principal direction"]
    return plot_common_point(x, r.positive, mix, point.tolist(), classes=classes, names=names)


def _draw_many(pairs: Any) -> Figure:
    import numpy as np

    from lamina.cli.exact_text import label
    from lamina.plots.separability import plot_answers

    k = len(pairs.classes)
    place = {c: i for i, c in enumerate(pairs.classes)}
    separable = np.zeros((k, k), dtype=bool)
    for (a, b), r in pairs.results.items():
        separable[place[a], place[b]] = separable[place[b], place[a]] = r.separable
    return plot_answers([label(c) for c in pairs.classes], separable)
