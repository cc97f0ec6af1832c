"""Write the tables of docs/transformer.md from the JSON of benchmarks/transformer.py alone.

The one on the small Transformer is from the JSON of examples/small_transformer.py.

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
SMALL = RESULTS.with_name("small_transformer.json")
SMALL_START, SMALL_END = "<!-- small:start -->", "<!-- small:end -->"
KINDS = {
    "dense": "dense",
    "loss": "experts, balance loss",
    "bias": "experts, selection bias",
}
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
        f"An {cpu['machine']} processor with AVX-512-BF16 and no AMX, one thread, on two cores, "
        f"load {load} with the benchmark's own; processor time, medians of "
        f"{found['n_rounds']} rounds. Peak: of multiply-adds in registers, measured. PyTorch "
        f"{found['torch']}, transformers {found['transformers']}."
    )
    block = f"{START}\n{table}\n\n{note}\n{END}"
    return re.sub(f"{START}.*?{END}", lambda _: block, page, flags=re.DOTALL)


def fill_small(page: str, found: Found) -> str:
    """Return the page with the small Transformers' table between its marks."""
    head = ["channel mixer", "parameters", "active", "bits a character", "ms a step"]
    head += ["load of an expert over the mean", "bits it tells of its character, by layer"]
    body = []
    for kind, run in found["models"].items():
        loads = [value for layer in run["layers"] for value in layer["load"]]
        told = ", ".join(f"{layer['information']:.2f}" for layer in run["layers"])
        body.append(
            [
                KINDS[kind],
                f"{run['n_params']:,}",
                f"{run['n_active']:,}",
                f"{run['curve'][-1][1]:.3f}",
                f"{1e3 * run['seconds_a_step']:.0f}",
                f"{min(loads):.2f} to {max(loads):.2f}" if loads else "",
                told,
            ]
        )
    chance = max(
        layer["information_shuffled"] for run in found["models"].values() for layer in run["layers"]
    )
    note = (
        f"{found['steps']:,} steps of 2,048 characters, of a text of {found['characters']:,}; bits "
        f"are of held-out characters ({found['unigram_bits']:.2f} by their frequencies alone). One "
        f"thread of two busy cores. Shuffled characters tell {chance:.3f} bits at most."
    )
    block = f"{SMALL_START}\n{markdown_table(head, body)}\n\n{note}\n{SMALL_END}"
    return re.sub(f"{SMALL_START}.*?{SMALL_END}", lambda _: block, page, flags=re.DOTALL)


@click.command(help=(__doc__ or "").replace("::\n", "\b"))
@click.argument("pages", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(pages: tuple[Path, ...]) -> None:
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    small = json.loads(SMALL.read_text(encoding="utf-8"))
    for page in pages:
        text = fill_small(fill(page.read_text(encoding="utf-8"), found), small)
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
