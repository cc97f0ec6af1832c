"""``lamina prove regions``: into how many linear pieces a network cuts its inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lamina.cli.console import json_option
from lamina.cli.network_file import open_network
from lamina.cli.proof import Proof, check_plot, plot_option, show

if TYPE_CHECKING:
    from fractions import Fraction

    from lamina.theory.linear_regions import LineRegions, WindowRegions

VERB = "prove regions"
N_SAMPLES = 20_000


@click.command("regions", epilog="Example: lamina prove regions net.lamina --window -1 1 -1 1")
@click.argument("model")
@click.option("--window", type=float, nargs=4, metavar="X0 X1 Y0 Y1", help="Default: -1 1 -1 1.")
@click.option("--axes", type=int, nargs=2, default=(0, 1), metavar="I J",
              help="Which two inputs, from 0. Default: 0 1.")  # fmt: skip
@click.option("--at", metavar="V,V,…", help="Where the other inputs are held. Default: 0.")
@click.option("--line", nargs=2, metavar="V,V,… V,V,…",
              help="Go along a segment between two points instead.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Draws the points of a check.")
@json_option
@plot_option
def command(
    model: str,
    window: tuple[float, float, float, float] | None,
    axes: tuple[int, int],
    at: str | None,
    line: tuple[str, str] | None,
    seed: int,
    as_json: bool,
    plot: str | None,
) -> None:
    """Count the linear regions of a network, exactly, in a window or along a line.

    MODEL is a file that net.save wrote, or a fitted MLPClassifier or MLPRegressor, of relu,
    leaky_relu, step or identity units. A network of one input is looked at from -1 to 1.
    """
    from lamina.core.errors import DataError
    from lamina.theory.linear_regions import regions_in_window, regions_on_line

    check_plot(plot, VERB)
    if line is not None and (window is not None or at is not None):
        raise DataError(
            f"{VERB}: expected either --line or a window (--window, --at), got both. Leave one out."
        )
    net = open_network(model, VERB)
    found: LineRegions | WindowRegions
    if line is None and net.spec.d_in == 1 and window is None:
        line = ("-1", "1")
    if line is not None:
        start, end = (_numbers(text, "--line") for text in line)
        found = regions_on_line(net, start, end)
        place = f"on the line from ({line[0]}) to ({line[1]})"
    else:
        x0, x1, y0, y1 = window or (-1.0, 1.0, -1.0, 1.0)
        held = None if at is None else _numbers(at, "--at")
        found = regions_in_window(net, ((x0, x1), (y0, y1)), axes=axes, at=held)
        place = (
            f"where {found.labels[0]} is {x0:g} to {x1:g} and {found.labels[1]} {y0:g} to {y1:g}"
        )
    show(_proof(found, place, seed), as_json, plot, VERB, found.plot)


def _numbers(text: str, option: str) -> list[float]:
    from lamina.core.errors import DataError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise DataError(
            f"{VERB}: expected {option} as numbers with commas between, got {text!r}. "
            "Write, for example, 0,0.5,-1."
        ) from error


def _proof(found: LineRegions | WindowRegions, place: str, seed: int) -> Proof:
    from lamina.theory.linear_regions import LineRegions

    seen, unknown = found.sample(N_SAMPLES, seed)
    sizes = found.sizes()
    total = sum(sizes)
    spec = found.net.spec
    what = "length" if isinstance(found, LineRegions) else "area"
    dims = " -> ".join(map(str, spec.layer_dims))
    units = ", ".join(dict.fromkeys([*spec.activations, spec.output]))
    evidence = [
        f"network {dims} ({units}); linear there: {_of(found.of)}",
        f"the regions' {what}s sum to {_exact(total)}: none is missing and none counted twice",
        f"{N_SAMPLES:,} random points (seed {seed}) meet {seen:,} of their on-off patterns, and "
        f"{unknown or 'no'} other",
    ]
    if isinstance(found, LineRegions) and found.breaks:
        first = ", ".join(f"{float(b):.6g}" for b in found.breaks[:8])
        more = f" and {len(found.breaks) - 8} more" if len(found.breaks) > 8 else ""
        evidence.append(f"regions end at {first}{more} of the way")
    for bound in found.bounds:
        sign = "at most" if bound.kind == "upper" else "possible"
        value = f"{bound.value:,}" if bound.value < 10**15 else f"about {_power(bound.value)}"
        evidence.append(f"{sign} {value}: {bound.source}")
    facts: dict[str, Any] = {
        "n_regions": found.n_regions,
        "n_pieces": found.n_pieces,
        "total": str(total),
        "sampled": {"points": N_SAMPLES, "seed": seed, "patterns": seen, "unknown": unknown},
        "bounds": [
            # Larger numbers than a double holds are text, for readers that know no integers
            {
                "value": b.value if b.value < 2**53 else str(b.value),
                "kind": b.kind,
                "source": b.source,
            }
            for b in found.bounds
        ],
    }
    if isinstance(found, LineRegions):
        facts["breaks"] = [float(b) for b in found.breaks]
        facts["exact_breaks"] = [str(b) for b in found.breaks]
        facts["bends"] = [float(b) for b in found.bends]
    n, m = found.n_regions, found.n_pieces
    return Proof(
        f"This network has {n:,} activation region{'s' if n != 1 else ''} and {m:,} linear "
        f"piece{'s' if m != 1 else ''} {place}.",
        tuple(evidence),
        (
            "between two breaks every unit keeps its sign: the network is one matrix there "
            "(work out its slope at two points of a region);",
            "a region ends where some unit's sum is 0: put a break, or a corner, into "
            "net.trace(x).z and find it.",
        ),
        facts,
    )


def _exact(total: Fraction | int) -> str:
    """That of the whole window or line, which is a long fraction where its ends are decimals."""
    return (
        f"{total}, exactly" if len(str(total)) < 12 else f"the whole's, {float(total):g}, exactly"
    )


def _of(name: str) -> str:
    return "y" if name == "y" else "z, before the output unit"


def _power(value: int) -> str:
    digits = str(value)
    return f"{digits[0]}.{digits[1]}e{len(digits) - 1}"
