"""``lamina prove collapse``: what of a network's depth is depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lamina.cli.console import check_output, json_option
from lamina.cli.network_file import open_network
from lamina.cli.proof import Proof, check_plot, plot_option, show

if TYPE_CHECKING:
    from lamina.core.network import Network
    from lamina.core.spec import NetworkSpec
    from lamina.theory.folding import Collapse

VERB = "prove collapse"
N_ROWS = 1000


@click.command("collapse", epilog="Example: lamina prove collapse deep.lamina --out flat.lamina")
@click.argument("model")
@click.option("--out", metavar="FILE", help="Write the collapsed network to this file.")
@click.option("--exact", is_flag=True, help="Multiply in fractions, and round once: slow.")
@json_option
@plot_option
def command(model: str, out: str | None, exact: bool, as_json: bool, plot: str | None) -> None:
    """Fold every linear hidden layer of a network into the next, and compare the two.

    MODEL is a file that net.save wrote, or a fitted MLPClassifier or MLPRegressor.
    """
    from lamina.theory.folding import collapse_report

    check_plot(plot, VERB)
    if out is not None:
        check_output(out, VERB, [model])
    net = open_network(model, VERB)
    report = collapse_report(net, exact=exact)
    difference, largest = _compare(net, report.network)
    if out is not None:
        report.network.save(out)
    before, after = report.before, report.after
    claim = "No hidden layer of this network is linear: there is nothing to fold."
    if report.folded:
        claim = (
            f"This network of {before.n_layers} layers is a network of {after.n_layers}: hidden "
            f"layer{'s' if len(report.folded) > 1 else ''} "
            f"{', '.join(map(str, report.folded))} had no non-linearity."
        )
        if not after.widths:
            claim = f"This network of {before.n_layers} layers is one matrix and a bias."
    evidence = [
        f"before  {_sizes(before)}   {before.n_params:,} parameters",
        f"after   {_sizes(after)}   {after.n_params:,} parameters",
        f"at {N_ROWS:,} random inputs they differ by at most {difference:.3g}, where outputs reach "
        f"{largest:.3g} ({difference / largest if largest else 0.0:.2g} of that; {before.dtype} "
        f"rounds to {_eps(before):.2g})",
    ]
    if out is not None:
        evidence.append(f"written to {out}")
    check = (
        "two layers without a non-linearity between them are one: W2 (W1 x + b1) + b2 = "
        "(W2 W1) x + (W2 b1 + b2).",
        "multiply net.weights[1] @ net.weights[0] and compare with the result's weights.",
    )
    facts: dict[str, Any] = {
        "folded": list(report.folded),
        "before": {"dims": list(before.layer_dims), "n_params": before.n_params},
        "after": {"dims": list(after.layer_dims), "n_params": after.n_params},
        "largest_difference": difference,
        "largest_output": largest,
        **({} if out is None else {"out": out}),
    }
    show(Proof(claim, tuple(evidence), check, facts), as_json, plot, VERB, lambda: _draw(report))


def _compare(net: Network, other: Network) -> tuple[float, float]:
    """The largest difference at random inputs, and the largest output."""
    import numpy as np

    x = np.random.default_rng(0).normal(size=(N_ROWS, net.spec.d_in))
    y = net(x).astype(np.float64)
    return float(np.abs(y - other(x)).max()), float(np.abs(y).max())


def _eps(spec: NetworkSpec) -> float:
    import numpy as np

    return float(np.finfo(spec.dtype).eps)


def _sizes(spec: NetworkSpec) -> str:
    """Widths and functions: ``3 -> 50 relu -> 2``."""
    parts = [str(spec.layer_dims[0])]
    names = [*spec.activations, spec.output]
    for width, name in zip(spec.layer_dims[1:], names, strict=True):
        parts.append(f"{width} {name}")
    return " -> ".join(parts)


def _draw(report: Collapse) -> Any:
    from lamina.plots.circuits import plot_layers

    return plot_layers(
        [
            (spec.layer_dims, ("input", *spec.activations, spec.output), spec.n_params)
            for spec in (report.before, report.after)
        ],
        folded=report.folded,
    )
