"""``lamina prove diagnose``: is a saved network healthy, and what hinders it if not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lamina.cli.console import json_option
from lamina.cli.proof import Proof, check_plot, plot_option, show

_VERB = "prove diagnose"
_CHECK = (
    "net.trace(x).h[l - 1] is what layer l puts out: a dead unit is a column of zeros, a saturated "
    "one hardly changes.",
    "net.gradients(x, y).weights[l - 1] is what learning changes: compare the norms of the layers.",
)


@click.command("diagnose", epilog="Example: lamina prove diagnose net.lamina x.npy --target y.npy")
@click.argument("model")
@click.argument("rows")
@click.option("--target", metavar="FILE", help="What should come out: a file like ROWS.")
@json_option
@plot_option
def command(model: str, rows: str, target: str | None, as_json: bool, plot: str | None) -> None:
    """Look for what hinders a saved network from learning.

    MODEL is a file of net.save, or of an MLPClassifier or MLPRegressor. ROWS holds the inputs as
    the network sees them: a .npy array, or numbers in a .csv or .tsv file without a header.
    """
    from lamina.loading import load
    from lamina.theory.diagnosis import diagnose

    check_plot(plot, _VERB)
    net = load(model)
    y = None if target is None else _read(target)
    if y is not None and y.ndim == 2 and y.shape[1] == 1 and hasattr(net, "classes_"):
        y = y[:, 0]
    found = diagnose(net, _read(rows), y)
    claim = "This network is healthy" if found.healthy else "Something hinders this network"
    evidence = tuple(str(found).splitlines())
    show(Proof(claim, evidence, _CHECK, found.to_dict()), as_json, plot, _VERB, found.plot)


def _read(path: str) -> Any:
    """Return the numbers of a file as an array of one or two dimensions."""
    import numpy as np

    from lamina.core.errors import DataError

    suffix = Path(path).suffix.lower()
    try:
        if suffix == ".npy":
            return np.load(path, allow_pickle=False)
        if suffix in (".csv", ".tsv"):
            if Path(path).stat().st_size == 0:
                raise ValueError("an empty file")
            return np.loadtxt(path, delimiter="\t" if suffix == ".tsv" else ",", ndmin=2)
    except (ValueError, EOFError) as error:
        raise DataError(
            f"{_VERB}: expected numbers in {path!r}, got: {str(error).rstrip('.')}. "
            "Pass a .npy array, or a .csv file of numbers without a header."
        ) from error
    raise DataError(
        f"{_VERB}: expected a .npy, .csv or .tsv file of numbers, got {path!r}. "
        "Write the rows with numpy.save."
    )
