"""Measure pictures as compressed fields beside JPEG, WebP and AVIF at equal bits a pixel.

::

    python benchmarks/fields_rate.py --data FOLDER         its pictures (.png)
    python benchmarks/fields_rate.py --report              rewrite docs/fields.md from the last run

Sizes are those of whole files. A peer's quality is the highest whose file is no larger than the
rate allows: JPEG optimised and WebP by its slowest method, both with their best chroma, AVIF at
speed 2, as Pillow writes them. A field learns for --seconds, tuning included.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

import lamina
from lamina.cli.kinds import Loaded
from lamina.cli.rate import Rate
from lamina.fields import ImageField, compress, read_image

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "fields_rate.json"
PAGE = HERE.parent / "docs" / "fields.md"
Array = np.ndarray[Any, Any]
RATES = (0.25, 0.5, 1.0, 2.0)
PEERS: dict[str, list[dict[str, Any]]] = {
    "JPEG": [{"optimize": True, "subsampling": chroma} for chroma in (0, 2)],
    "WEBP": [{"method": 6}],
    "AVIF": [{"speed": 2, "subsampling": chroma} for chroma in ("4:4:4", "4:2:0")],
}


def psnr(a: Array, b: Array) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b) ** 2)))


def peer(pixels: Array, kind: str, n_bytes: int) -> float | None:
    """Return the best PSNR of a peer whose file is small enough, if any is."""
    image, best = Image.fromarray(pixels), None
    for options in PEERS[kind]:

        def size(quality: int, options: dict[str, Any] = options) -> tuple[int, bytes]:
            data = io.BytesIO()
            image.save(data, format=kind, quality=quality, **options)
            return len(data.getvalue()), data.getvalue()

        quality = _highest(lambda q, size=size: size(q)[0] <= n_bytes)
        if quality is None:
            continue
        with Image.open(io.BytesIO(size(quality)[1])) as found:
            score = psnr(np.asarray(found.convert(image.mode)), pixels)
        best = score if best is None else max(best, score)
    return best


def _highest(fits: Callable[[int], bool]) -> int | None:
    """Return the highest quality from 0 to 100 that fits, by bisection."""
    low, high = -1, 100
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low if low >= 0 else None


def ours(pixels: Array, bpp: float, seconds: float) -> dict[str, float]:
    """Return what `lamina encode --bpp` makes of a picture."""
    rate = Rate.of(Loaded(pixels, "", {"shape": list(pixels.shape)}), bpp, None)
    assert rate is not None
    limits, tune = rate.limits(seconds, None)
    since = time.process_time()
    field = ImageField(rng=0).fit(pixels, n_params=rate.n_params, **limits)
    small = compress(field, n_bytes=rate.n_bytes, signal=pixels, **tune)
    return {
        "psnr": psnr(small.render(), pixels),
        "bpp": 8 * small.n_file_bytes / (pixels.shape[0] * pixels.shape[1]),
        "bits_per_weight": small.bits_per_weight,
        "cpu_seconds": time.process_time() - since,
    }


def table(results: dict[str, Any]) -> str:
    """Return the block of docs/fields.md."""
    lines = [
        "| dB | bits a pixel | lamina | JPEG | WebP | AVIF |",
        "| --- | --: | --: | --: | --: | --: |",
    ]
    for r in results["rows"]:
        others = ("–" if r[k] is None else f"{r[k]:.1f}" for k in PEERS)
        lines.append(
            f"| {r['picture']} | {r['wanted']:g} | {r['psnr']:.1f} | {' | '.join(others)} |"
        )
    lines += [
        "",
        f"{results['seconds']:g} s for each of lamina's files, {results['n_threads']} threads. A "
        "field holds one function of the plane, without prediction, transforms or contexts: WebP "
        "and AVIF are better at every size, JPEG at most; the better all are, the more it loses.",
    ]
    return "\n".join(lines)


@click.command(help=(__doc__ or "").replace("::\n", "\b"))
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="A folder of pictures.")
@click.option("--seconds", default=30.0, show_default=True)
@click.option("--rates", default=",".join(f"{r:g}" for r in RATES), show_default=True)
@click.option("--report", is_flag=True, help="Only rewrite the page.")
def main(data: Path | None, seconds: float, rates: str, report: bool) -> None:
    if not report:
        if data is None:
            raise click.UsageError("expected --data FOLDER, got none.")
        rows = []
        for path in sorted(data.rglob("*.png")):
            pixels = read_image(path)
            for bpp in map(float, rates.split(",")):
                n_bytes = int(bpp * pixels.shape[0] * pixels.shape[1] / 8)
                row = {"picture": path.stem, "wanted": bpp, **ours(pixels, bpp, seconds)}
                row |= {kind: peer(pixels, kind, n_bytes) for kind in PEERS}
                rows.append(row)
                click.echo(json.dumps(row))
        info = lamina.info()
        told = {"seconds": seconds, "isa": info["isa"], "n_threads": info["n_threads"]}
        RESULTS.write_text(json.dumps({**told, "rows": rows}, indent=1) + "\n")
    text = PAGE.read_text()
    begin, end = "<!-- rate:start -->\n", "<!-- rate:end -->"
    before, after = text.split(begin)[0], text.split(end)[1]
    PAGE.write_text(f"{before}{begin}{table(json.loads(RESULTS.read_text()))}\n{end}{after}")


if __name__ == "__main__":
    main()
