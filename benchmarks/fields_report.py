"""Write the tables of docs/fields.md from the JSON of benchmarks/fields.py and nothing else.

::

    python benchmarks/fields_report.py docs/fields.md
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
from report import markdown_table

RESULTS = Path(__file__).resolve().parent / "results" / "fields.json"
START, END = "<!-- fields:start -->", "<!-- fields:end -->"

Result = dict[str, Any]


def cell(found: Result) -> str:
    """PSNR, and the CPU seconds of a fit."""
    return f"{found['psnr']:.1f} ({found['cpu']:.1f})"


def pictures(found: Result) -> str:
    head = ["dB (CPU seconds)", "shrunk", "½ a value, 5 s", "½, 30 s", "1 a value, 30 s"]
    head += ["gaps: cubic", "gaps: field"]
    rows = []
    for name, each in found.items():
        if isinstance(each, dict) and "shrunk" in each:
            fits = [cell(each[what]) for what in ("half, 5 s", "half, 30 s", "whole, 30 s")]
            gaps = each["gaps"]
            held = [f"{gaps['cubic']:.1f}", f"{gaps['field']['held_out']:.1f}"]
            rows.append([name.partition(".")[0], f"{each['shrunk']:.1f}", *fits, *held])
    return markdown_table(head, rows)


def sentences(found: Result) -> str:
    retina, guitar = found["retina.jpg"]["half, 60 s"], found["guit_em9.flac"]["half, 60 s"]
    limit = f"{retina['limit']:g} s"
    lines = [
        f"retina (1411²) at half a parameter a value: {retina['psnr']:.1f} dB after {limit} "
        f"({retina['cpu']:.0f} CPU seconds). Ten seconds of guitar, stereo, at half a parameter a "
        f"sample: {guitar['snr']:.1f} dB SNR after {guitar['limit']:g} s ({guitar['cpu']:.0f})."
    ]
    return "\n".join(lines)


def presets(found: Result) -> str:
    each = found["camera.png"]["presets"]
    limit = each["hash"]["limit"]
    rows = [[f"`{name}`", cell(r), f"{r['steps']:,}"] for name, r in each.items()]
    return markdown_table([f"camera, {limit:g} s", "dB (CPU seconds)", "steps"], rows)


def torch(found: Result) -> str:
    rows = []
    for name, each in found.items():
        if isinstance(each, dict) and "torch" in each:
            t = each["torch"]
            scores = [f"{t[engine]['psnr']:.1f}" for engine in ("lamina", "torch")]
            ratios = [f"{t[ratio]:.0f}" for ratio in ("ratio", "cpu_ratio")]
            rows.append([name.partition(".")[0], str(t["steps"]), *scores, *ratios])
    head = ["the same network", "steps", "lamina dB", "PyTorch dB"]
    return markdown_table([*head, "PyTorch's time ÷ ours", "CPU time ÷ ours"], rows)


def fill(page: str, found: Result) -> str:
    """Return the page with the tables between its marks."""
    cpu = found["host"]["cpu"]
    note = (
        f"An {cpu['machine']} processor ({cpu['isa']}), {found['threads']} threads on two cores; "
        "CPU seconds are of all threads; float32."
    )
    body = "\n\n".join(f(found) for f in (pictures, sentences, presets, torch))
    block = f"{START}\n{body}\n\n{note}\n{END}"
    return re.sub(f"{START}.*?{END}", lambda _: block, page, flags=re.DOTALL)


@click.command(help=(__doc__ or "").replace("::\n", "\b"))
@click.argument("pages", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(pages: tuple[Path, ...]) -> None:
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    for page in pages:
        page.write_text(fill(page.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
