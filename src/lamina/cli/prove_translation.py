"""``lamina prove translation``: no linear unit knows a pattern that may be shifted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lamina.cli.console import json_option
from lamina.cli.proof import Proof, check_plot, plot_option, show

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


@click.command("translation", epilog="Example: lamina prove translation --plot shifts.png")
@json_option
@plot_option
def command(as_json: bool, plot: str | None) -> None:
    """Prove that no linear unit tells two patterns apart under every shift.

    Two patterns of four black pixels on a ring of sixteen: the proof that no linear unit separates
    their 32 shifts, a network of one hidden layer that does, and a feature that makes it easy.
    """
    import numpy as np

    from lamina.cli.exact_text import exact_text, formula
    from lamina.theory.invariance import autocorrelation, invariant_separability
    from lamina.theory.linear_separability import separability
    from lamina.theory.patterns import translation_network, translation_patterns

    check_plot(plot, "prove translation")
    a, b = translation_patterns()
    r = invariant_separability(a, b, "cyclic")
    network = translation_network()
    images = np.concatenate([r.orbit_a, r.orbit_b])
    features = np.array([autocorrelation(image) for image in images])  # (32, 16)
    easy = separability(features[:, :9], network.y, max_margin=True)  # r[k] = r[16 - k]
    names = [f"r{k}" for k in range(9)]
    rule = formula(easy.exact_weights or (), easy.exact_bias or r.mean_a[0] * 0, names)
    right, width = network.n_correct, network.network.spec.widths[0]
    proof = Proof(
        "No linear unit tells these two patterns apart under every shift with wrap-around.",
        (
            f"A  {_drawn(a)}",
            f"B  {_drawn(b)}",
            f"Each has 4 black pixels of 16 and 16 shifts. Mean of A's shifts: {r.mean_a[0]} in "
            f"every pixel; of B's: {r.mean_b[0]}.",
            "That mean is a convex mix, 1/16 of each shift, of A's shifts and of B's alike: a "
            "point of both convex hulls.",
            f"Checked in fractions, without the solver: {'yes' if r.verify() else 'NO'}.",
            "",
            f"One hidden layer of {width} units, trained on the 32 shifts: {right} of 32 right.",
            "One feature map, r_k = number of pairs of black pixels k apart, is the same for every "
            "shift of a pattern:",
            f"  A  {' '.join(map(str, features[0, :9]))}   (k = 0 to 8)",
            f"  B  {' '.join(map(str, features[16, :9]))}",
            f"  {rule} is positive for A's shifts only "
            f"(checked in fractions: {'yes' if easy.verify() else 'NO'}).",
        ),
        (
            "Add w·x + b over the 16 shifts of A. Every pixel is black in 4 of them, so the sum is "
            "4·(w1 + … + w16) + 16·b.",
            "The sum over B's shifts is the same. It cannot be positive and not positive.",
        ),
        {
            "separable": r.separable,
            "a": a.tolist(),
            "b": b.tolist(),
            "mean_a": exact_text(r.mean_a),
            "mean_b": exact_text(r.mean_b),
            "verified": r.verify(),
            "network": {"widths": [width], "right": right, "of": len(images)},
            "autocorrelation": {
                "a": features[0].tolist(),
                "b": features[16].tolist(),
                "separable": easy.separable,
                "weights": exact_text(easy.exact_weights),
                "bias": exact_text(easy.exact_bias),
                "verified": easy.verify(),
            },
        },
    )

    def draw() -> Figure:
        from lamina.plots.translation import plot_translation

        pairs = (features[0, :9], features[16, :9])
        return plot_translation((r.orbit_a, r.orbit_b), pairs, network.probability)

    show(proof, as_json, plot, "prove translation", draw)


def _drawn(pattern: NDArray[np.int64]) -> str:
    return "".join("■" if pixel else "·" for pixel in pattern.tolist())
