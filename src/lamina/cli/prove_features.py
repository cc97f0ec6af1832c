"""``lamina prove features``: a feature map that makes the exclusive or linearly separable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lamina.cli.console import json_option
from lamina.cli.proof import Proof, check_plot, plot_option, show

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lamina.theory.certificate import Separability
    from lamina.theory.feature_maps import FeatureMap

VERB = "prove features"
MOST_VARIABLES = 8
MOST_LINES = 16  # of a table that people read


@click.command("features", epilog='Example: lamina prove features "x1, x2, x1*x2" --plot xor3d.png')
@click.argument("formulas", metavar="[FORMULAS]", default="x1, x2, x1*x2")
@json_option
@plot_option
def command(formulas: str, as_json: bool, plot: str | None) -> None:
    """Ask whether features make the exclusive or linearly separable.

    FORMULAS, apart by commas, are features of x1, x2, … (default x1, x2, x1*x2). The points are the
    corners of the square, or of the cube in as many variables as are named; the class is the
    exclusive or, that is the parity, of the coordinates. A picture needs three features.
    """
    import numpy as np

    from lamina.core.errors import DataError
    from lamina.theory.feature_maps import feature_map
    from lamina.theory.linear_separability import separability

    check_plot(plot, VERB)
    phi = feature_map(formulas)
    corners, y = _cube(max(phi.d_in, 2))
    features = phi(corners)
    r = separability(features, y, max_margin=True)
    if plot is not None and (len(phi) != 3 or not r.separable):
        raise DataError(
            f"{VERB}: expected three features that separate for --plot, got {len(phi)} that "
            f"{'do' if r.separable else 'do not'}. Name three, such as x1, x2, x1*x2."
        )
    proof = (_plane if r.separable else _common_point)(phi, corners, y, features, r)
    show(proof, as_json, plot, VERB, lambda: _draw(phi, features.astype(np.float64), y, r))


def _cube(d: int) -> tuple[Any, list[int]]:
    """The corners of the cube, as fractions, and their parity."""
    from fractions import Fraction
    from itertools import product

    import numpy as np

    from lamina.core.errors import DataError

    if d > MOST_VARIABLES:
        raise DataError(
            f"{VERB}: expected at most {MOST_VARIABLES} variables, got {d}, whose cube has 2^{d} "
            f"corners. Use fewer."
        )
    rows = [[Fraction(v) for v in corner] for corner in product((0, 1), repeat=d)]
    return np.array(rows, dtype=object), [int(sum(row)) % 2 for row in rows]


def _words(phi: FeatureMap, corners: Any) -> tuple[list[str], str]:
    """The features, in brackets where they are sums, and what is to be computed."""
    d = corners.shape[1]
    names = [f"({n})" if "+" in n or "-" in n else n for n in phi.names]
    return names, "x1 xor x2" if d == 2 else f"the parity of x1 … x{d}"


def _plane(phi: FeatureMap, corners: Any, y: list[int], features: Any, r: Separability) -> Proof:
    """What is said of features that do."""
    from lamina.cli.exact_text import formula, number, vector

    names, what = _words(phi, corners)
    if r.exact_weights is None or r.exact_bias is None:
        raise AssertionError("separable without a plane")
    plane = formula(r.exact_weights, r.exact_bias, names)
    evidence = [f"y = [{plane} > 0], margin {r.margin:.6g}", ""]
    for corner, row, label in list(zip(corners, features, y, strict=True))[:MOST_LINES]:
        z = sum((w * v for w, v in zip(r.exact_weights, row, strict=True)), r.exact_bias)
        evidence.append(
            f"x = {vector(corner)}: features {vector(row)}, sum {number(z)}, class {label}"
        )
    if len(y) > MOST_LINES:
        evidence.append(f"… and {len(y) - MOST_LINES} more corners")
    return Proof(
        f"One linear unit of the features {', '.join(names)} computes {what}.",
        (*evidence, _checked(r)),
        ("put each corner into the sum: it is positive where the class is 1, else negative.",),
        _facts(phi, corners, r),
    )


def _common_point(
    phi: FeatureMap, corners: Any, y: list[int], features: Any, r: Separability
) -> Proof:
    """What is said of features that do not."""
    from lamina.cli.exact_text import number, vector

    del features  # the certificate holds the point that they share
    names, what = _words(phi, corners)
    evidence = [f"both classes' convex hulls hold the features {vector(r.point or ())}"]
    for label, mix in ((1, r.positive_mix or ()), (0, r.negative_mix or ())):
        rows = [c for c, k in zip(corners, y, strict=True) if k == label]
        terms = [f"{number(w)}·φ{vector(c)}" for w, c in zip(mix, rows, strict=True) if w]
        evidence.append(f"class {label}: {' + '.join(terms)}")
    return Proof(
        f"No linear unit of the features {', '.join(names)} computes {what}.",
        (*evidence, _checked(r)),
        (
            "work both sums out: they are equal. A linear unit would be positive at the one, as on",
            "all of class 1, and not at the other.",
        ),
        _facts(phi, corners, r),
    )


def _checked(r: Separability) -> str:
    return f"Checked in fractions, without the solver: {'yes' if r.verify() else 'NO'}."


def _facts(phi: FeatureMap, corners: Any, r: Separability) -> dict[str, Any]:
    from lamina.cli.exact_text import exact_text

    return {
        "features": list(phi.names),
        "variables": int(corners.shape[1]),
        "separable": r.separable,
        "weights": exact_text(r.exact_weights),
        "bias": exact_text(r.exact_bias),
        "margin": r.margin,
        "point": exact_text(r.point),
        "verified": r.verify(),
    }


def _draw(phi: FeatureMap, features: Any, y: list[int], r: Separability) -> Figure:
    import numpy as np

    from lamina.plots.feature_map import plot_feature_map

    if r.weights is None or r.bias is None:  # asked for before
        raise AssertionError("a picture needs a plane")
    return plot_feature_map(features, np.array(y) == 1, r.weights, r.bias, phi.names)
