"""Write the table of docs/transformer.md from the JSON of benchmarks/transformer.py alone.

::

    python benchmarks/transformer_report.py docs/transformer.md
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
from report import markdown_table

RESULTS = Path(__file__).resolve().parent / "results" / "transformer.json"
START, END = "<!-- transformer:start -->", "<!-- transformer:end -->"
WORDS = {
    "ffn": "768→3072 GELU, 2,048 tokens, forward + backward",
    "ffn-one-token": "the same, one token",
    "moe": "8×(512→2048) top 2, 2,048 tokens, forward + backward",
    "moe-one-token": "the same, one token",
}

Found = dict[str, Any]


def rows(run: Found) -> list[list[str]]:
    """One line an engine of ours: of processor time, which other processes disturb least."""
    made = []
    for case, engines in run["cases"].items():
        for name, r in engines.items():
            if not name.startswith("lamina"):
                continue
            kind = "float32" if name.endswith("float32") else "bfloat16"
            share = r["cpu_gflops"] / run["peak"][kind]
            beside = ", ".join(f"{peer} {value:.2f}" for peer, value in r["cpu_ratio"].items())
            peak = "" if case.endswith("token") else f"{share:.0%}"
            ms = f"{1e3 * r['cpu']:.3g}"
            made.append([WORDS[case], name.removeprefix("lamina "), ms, peak, beside])
    return made


def fill(page: str, found: Found) -> str:
    """Return the page with the table between its marks."""
    run = next(run for run in found["runs"] if run["threads"] == 1)
    head = ["layer", "lamina in", "CPU ms", "of peak", "times as fast as"]
    table = markdown_table(head, rows(run))
    cpu = found["host"]["cpu"]
    load = " to ".join(f"{before[0]:.1f}" for before in run["load"])
    note = (
        f"An {cpu['machine']} processor with AVX-512-BF16 and no AMX, one thread, on two cores "
        f"that others used as well (load {load}), hence processor time; medians of "
        f"{found['n_rounds']} rounds. Peak: of multiply-adds in registers, measured. PyTorch "
        f"{found['torch']}, transformers {found['transformers']}."
    )
    block = f"{START}\n{table}\n\n{note}\n{END}"
    return re.sub(f"{START}.*?{END}", lambda _: block, page, flags=re.DOTALL)


@click.command(help=(__doc__ or "").replace("::\n", "\b"))
@click.argument("pages", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(pages: tuple[Path, ...]) -> None:
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    for page in pages:
        page.write_text(fill(page.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
