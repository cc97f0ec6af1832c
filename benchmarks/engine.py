"""Time lamina against scikit-learn, PyTorch, JAX and onnxruntime in one interleaved run.

::

    python benchmarks/engine.py                      everything, some minutes a round
    python benchmarks/engine.py --quick              a try with tiny sizes
    python benchmarks/engine.py --workloads A,fit-A  some of it

Prints ratios and writes JSON, from which ``report.py`` makes the tables of README and docs: what
``lamina bench`` does, from a checkout. ``benchmarks/README.md`` says what is timed and how.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from lamina.bench import measure, terminal
from lamina.bench.engines import ENGINES
from lamina.core.errors import SpecError

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent


def chosen(names: list[str], standard: list[str]) -> Any:
    """Return a click callback that turns "A,infer" into names; "infer" names all infer-…."""

    def parse(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str]:  # noqa: ARG001
        try:
            return standard if value is None else measure.choose(value, names)
        except SpecError as error:
            raise click.BadParameter(str(error)) from error

    return parse


def interpreter(context: click.Context, parameter: click.Parameter, value: str) -> str:  # noqa: ARG001
    """Return the path of an interpreter, or say that there is none."""
    found = shutil.which(value)
    if found is None:
        raise click.BadParameter(f"expected a Python interpreter, got {value!r}.")
    return found


@click.command(help=(__doc__ or "").replace("::\n", "\b"))
@click.option(
    "--workloads", callback=chosen(measure.ALL_WORKLOADS, []), help="Names, with commas between."
)
@click.option(
    "--engines",
    callback=chosen(list(ENGINES), measure.STANDARD),
    help="Names, with commas between; torch.compile runs only when named.",
)
@click.option("--rounds", type=click.IntRange(1), help="Default 5; 1 with --quick.")
@click.option("--threads", type=click.IntRange(1), help="Default: as lamina chooses.")
@click.option("--seconds", type=click.FloatRange(0), help="A measurement; default 1.")
@click.option("--quick", is_flag=True, help="Tiny sizes: to try the benchmark, not to measure.")
@click.option(
    "--jax-python",
    default=sys.executable,
    callback=interpreter,
    help="The interpreter of an environment that has JAX; default: this one.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=FOLDER / "results" / "local" / "engine.json",
    help="Default: benchmarks/results/local/engine.json.",
)
def main(
    workloads: list[str],
    engines: list[str],
    rounds: int | None,
    threads: int | None,
    seconds: float | None,
    quick: bool,
    jax_python: str,
    out: Path,
) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        with console.status("") as status:
            result = measure.run(
                workloads,
                engines,
                n_rounds=rounds,
                n_threads=threads,
                seconds=seconds,
                quick=quick,
                jax_python=jax_python,
                say=status.update,
            )
    except SpecError as error:
        raise click.UsageError(str(error)) from error
    measure.write(out, result)
    terminal.show(console, result)
    console.print(f"written: {out.relative_to(ROOT) if out.is_relative_to(ROOT) else out}")


if __name__ == "__main__":
    main()
