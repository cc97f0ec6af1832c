"""``lamina prove hidden``: a hidden layer makes the exclusive or a matter of one line."""

from __future__ import annotations

import click

from lamina.cli.console import json_option
from lamina.cli.proof import Proof, check_plot, plot_option, show

CORNERS = [[0, 0], [0, 1], [1, 0], [1, 1]]
XOR = [0, 1, 1, 0]


@click.command("hidden", epilog="Example: lamina prove hidden --plot hidden.png")
@json_option
@plot_option
def command(as_json: bool, plot: str | None) -> None:
    """Show how two hidden units make the exclusive or linearly separable.

    The network is h1 = relu(x1 + x2), h2 = relu(x1 + x2 - 1), y = h1 - 2 h2; the picture shows the
    corners, and a grid, in the plane of (x1, x2) and in that of (h1, h2).
    """
    from lamina.cli.exact_text import vector
    from lamina.core.network import Network
    from lamina.theory.feature_layers import learned_features
    from lamina.theory.hidden_spaces import hidden_space
    from lamina.theory.linear_separability import separability

    check_plot(plot, "prove hidden")
    net = Network(2, (2,), 1, dtype="float64", rng=0)
    net.weights[0], net.biases[0] = [[1, 1], [1, 1]], [0, -1]
    net.weights[1], net.biases[1] = [[1, -2]], [0]
    features = learned_features(net, CORNERS, XOR)
    h, y_pred = features[1](CORNERS), net(CORNERS)[:, 0]
    before, after = separability(CORNERS, XOR), separability(h, XOR)
    if before.point is None or after.weights is None:
        raise AssertionError("the hidden layer does not separate the exclusive or")
    w, b = after.weights.tolist(), after.bias
    rows = [
        f"({x[0]}, {x[1]})  ->  h = ({a[0]:g}, {a[1]:g})  ->  y = {out:g}"
        for x, a, out in zip(CORNERS, h.tolist(), y_pred.tolist(), strict=True)
    ]
    proof = Proof(
        "Two hidden units make the exclusive or linearly separable.",
        (
            f"In (x1, x2) no line parts the classes: both hulls hold {vector(before.point)}.",
            *rows,
            f"In (h1, h2) a line does: {w[0]:g}·h1 {w[1]:+g}·h2 {b:+g} = 0, "
            f"at {after.margin:.3g} from the nearest row.",
            f"Both checked in fractions: {'yes' if before.verify() and after.verify() else 'NO'}.",
        ),
        (
            "h1 = max(0, x1 + x2) and h2 = max(0, x1 + x2 - 1): compute them for the four corners.",
            "(0, 1) and (1, 0) fall on one place, (1, 0); h1 - 2 h2 is 1 there, and 0 at the rest.",
        ),
        {
            "separable_before": False,
            "separable_after": True,
            "hidden": h.tolist(),
            "y_pred": y_pred.tolist(),
            "weights": w,
            "bias": b,
            "margin": after.margin,
        },
    )
    show(proof, as_json, plot, "prove hidden", hidden_space(net, CORNERS, XOR).plot)
