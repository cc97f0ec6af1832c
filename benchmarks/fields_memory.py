"""Measure the memory that a picture of 24 megapixels takes to fit and to render.

::

    python benchmarks/fields_memory.py
    python benchmarks/fields_memory.py --picture PHOTO.png --seconds 60

Without --picture, one of 4,000 x 6,000 pixels is made: scikit-image's coffee, enlarged tenfold,
with noise. Each row is a process of its own. `before` is resident once everything is imported and a
small picture was fitted and rendered (and, for arrays, the large one read); `peak` is the most it
ever was after that. What is between them should be less than a second copy of the picture beside
the network with its moments and gradients (16 bytes a parameter); `render` returns a picture of its
own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
from report import markdown_table

import lamina
from lamina.bench import host
from lamina.fields import ImageField, read_image

RESULTS = Path(__file__).resolve().parent / "results" / "fields_memory.json"
N_PARAMS = {"1 million parameters": 1_000_000, "½ a value": None}


def resident(which: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(which + ":"):
            return int(line.split()[1]) * 1024
    raise click.ClickException(f"expected {which} in /proc/self/status: this needs Linux.")


def child(picture: Path, what: str, n_params: int | None, seconds: float, model: Path) -> None:
    """Do one thing, and print the bytes resident before it and at most."""
    small = ImageField(rng=0).fit(np.zeros((64, 64, 3), np.uint8), max_steps=20)
    small.render()
    signal: Any = str(picture)
    if what == "array":
        # at rest: the buffers of reading are given back, so that they do not hide later ones
        signal = np.load(picture.with_suffix(".npy"))
    field: Any = lamina.load(model) if what == "render" else ImageField(rng=0)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    before = resident("VmRSS")
    if what == "render":
        pixels = field.render()
        shape: Any = pixels.shape
    else:
        field.fit(signal, max_seconds=seconds, n_params=n_params)
        shape = field.shape
    peak = resident("VmHWM")
    told = {"before": before, "peak": peak, "n_params": field.n_params, "shape": list(shape)}
    if what != "render":
        field.save(model)
        told |= {"psnr": field.report.psnr, "steps": field.report.n_steps}
    click.echo(json.dumps(told))


def make_picture(target: Path) -> None:
    """Write a picture of 24 megapixels."""
    from PIL import Image
    from skimage import data

    large = Image.fromarray(data.coffee()).resize((6000, 4000), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).normal(0, 4, (4000, 6000, 3))
    Image.fromarray((np.asarray(large) + noise).clip(0, 255).astype(np.uint8)).save(
        target, compress_level=1
    )


def rows(found: dict[str, Any]) -> str:
    """The table, in megabytes."""
    head = ["", "picture", "network", "before", "peak", "grown by", "dB"]
    body = []
    for name, r in found["runs"].items():
        size = np.prod(r["shape"]) / 1e6
        network = r["n_params"] * (4 if "render" in name else 16) / 1e6
        psnr = f"{r['psnr']:.1f}" if "psnr" in r else ""
        before, peak = r["before"] / 1e6, r["peak"] / 1e6
        cells = [size, network, before, peak, peak - before]
        body.append([name, *(f"{cell:.0f}" for cell in cells), psnr])
    return markdown_table(head, body)


@click.command(help=(__doc__ or "").replace("::\n", "\b"))
@click.option("--picture", type=click.Path(exists=True, path_type=Path))
@click.option("--seconds", default=60.0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
@click.option("--child", "task", nargs=3, hidden=True)
def main(picture: Path | None, seconds: float, out: Path, task: tuple[str, str, str]) -> None:
    if task:
        assert picture is not None
        what, n_params, model = task
        child(picture, what, int(n_params) or None, seconds, Path(model))
        return
    found: dict[str, Any] = {"host": host.describe(host.n_cpus()), "runs": {}}
    with tempfile.TemporaryDirectory() as folder:
        if picture is None:
            picture = Path(folder, "coffee.png")
            make_picture(picture)
        local = Path(folder, "it" + picture.suffix)
        local.symlink_to(picture.resolve())
        np.save(local.with_suffix(".npy"), read_image(picture))
        for size, n_params in N_PARAMS.items():
            for what in ("file", "array", "render"):
                command = [sys.executable, __file__, "--picture", str(local)]
                command += ["--seconds", str(seconds)]
                command += ["--child", what, str(n_params or 0), f"{folder}/model.lamina"]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found["runs"][f"{what}, {size}"] = json.loads(done.stdout)
                click.echo(f"{what}, {size}: {done.stdout.strip()}", err=True)
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    click.echo(rows(found))


if __name__ == "__main__":
    main()
