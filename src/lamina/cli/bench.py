"""``lamina bench``: this machine, measured against the peers that are installed on it."""

from __future__ import annotations

import sys

import click

from lamina.cli.console import json_option, print_json


@click.command("bench", epilog="Example: lamina bench --workloads A,B --rounds 3")
@click.option(
    "--workloads",
    metavar="NAMES",
    help="With commas between: A, B, C, D, E (training), A64, B64, fit, infer, activations, "
    "threads, rows [default: A,B,C,D,E,infer].",
)
@click.option(
    "--engines",
    metavar="NAMES",
    help="With commas between, as the tables name them [default: all but torch.compile].",
)
@click.option("--rounds", type=click.IntRange(1), metavar="N", help="[default: 5; 1 if --quick]")
@click.option(
    "--seconds", type=click.FloatRange(0), metavar="S", help="A measurement [default: 1]."
)
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="[default: all cores]")
@click.option("--quick", is_flag=True, help="Tiny sizes: to try it, not to measure.")
@click.option(
    "--jax-python",
    metavar="PYTHON",
    default=sys.executable,
    help="The interpreter of an environment that has JAX [default: this one].",
)
@json_option
def command(
    workloads: str | None,
    engines: str | None,
    rounds: int | None,
    seconds: float | None,
    threads: int | None,
    quick: bool,
    jax_python: str,
    as_json: bool,
) -> None:
    """Time lamina against its peers here.

    The peers are scikit-learn, PyTorch, JAX and onnxruntime; one that is not installed is listed as
    such. Each measurement has a process of its own; engines take turns, round by round, on the same
    data, first weights and threads, and a ratio is taken within a round. The peak is measured
    beside the work, by a loop of multiply-adds in registers. Let nothing else run meanwhile.
    """
    from rich.console import Console

    from lamina.bench import measure, terminal
    from lamina.bench.engines import ENGINES
    from lamina.bench.workloads import QUICK

    standard = ",".join(QUICK) if quick else "A,B,C,D,E,infer"
    names = measure.choose(workloads or standard, measure.ALL_WORKLOADS)
    chosen = measure.choose(engines, list(ENGINES)) if engines else measure.STANDARD
    said = Console(stderr=True)
    with said.status("") as status:
        result = measure.run(
            names,
            chosen,
            n_rounds=rounds,
            n_threads=threads,
            seconds=seconds,
            quick=quick,
            jax_python=jax_python,
            say=status.update,
        )
    if as_json:
        print_json(result)
        return
    terminal.show(Console(width=None if sys.stdout.isatty() else 120), result)
