"""Measure fields on pictures and a sound: quality within a time, against what needs no network.

::

    python benchmarks/fields.py --data FOLDER
    python benchmarks/fields.py --data FOLDER --cases photos,torch --share 0.2

FOLDER holds images/camera.png, astronaut.png, coffee.png and retina.jpg, and audio/guit_em9.flac;
what is missing is left out and named. Of each photograph:

* shrunk: the picture shrunk by Lanczos to half as many numbers and enlarged bicubically;
* half: a field of at most half a parameter a pixel-channel, after 5 and 30 s;
* whole: one of at most one parameter, after 30 s;
* gaps: trained on every other pixel, judged on the others, beside cubic interpolation (SciPy's
  griddata).

`torch` gives the same network, learning rates and batches to PyTorch, as users write it there, for
as many steps, and compares time and PSNR. CPU seconds are beside the seconds of the clock: on
a machine that others use as well, the clock says less.
"""

from __future__ import annotations

import importlib.util
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from lamina.bench import host
from lamina.core.threads import default_n_threads
from lamina.fields import AudioField, ImageField, read_audio, read_image

PHOTOS = ("camera.png", "astronaut.png", "coffee.png")
CASES = ("photos", "gaps", "retina", "guitar", "presets", "torch")

Result = dict[str, Any]


def psnr(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    return float(-10 * np.log10(np.mean(((a.astype(float) - b) / 255) ** 2)))


def shrunk(pixels: np.ndarray[Any, Any], share: float) -> float:
    """PSNR of the picture kept as `share` of its numbers."""
    from PIL import Image

    height, width = pixels.shape[:2]
    size = round(width * math.sqrt(share)), round(height * math.sqrt(share))
    small = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    return psnr(np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)), pixels)


def clocked(call: Callable[[], Any]) -> tuple[Any, Result]:
    """What `call` returns, and the seconds of the clock and of the CPUs that it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    value = call()
    return value, {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def one(signal: Any, seconds: float, share: float, preset: str = "hash", **options: Any) -> Result:
    """Fit one field of `share` parameters a value."""
    kind = AudioField if "rate" in options else ImageField
    field = kind(preset, rng=0)
    _, spent = clocked(
        lambda: field.fit(signal, max_seconds=seconds, params_per_value=share, **options)
    )
    report = field.report
    found = {
        "limit": seconds,
        "psnr": report.psnr,
        "params_per_value": report.n_params / report.n_values,
        "steps": report.n_steps,
        **spent,
    }
    encoding: Any = field.network.encoding
    if preset == "hash":
        found["finest"] = encoding.finest_resolution
    if kind is AudioField:
        found["snr"] = field.snr(signal, rate=options["rate"])
    mask = options.get("mask")
    if mask is not None:
        found["held_out"] = field.psnr(signal, mask=~mask)
    return found


def photo(pixels: np.ndarray[Any, Any], scale: float) -> Result:
    return {
        "shrunk": shrunk(pixels, 0.5),
        "half, 5 s": one(pixels, 5 * scale, 0.5),
        "half, 30 s": one(pixels, 30 * scale, 0.5),
        "whole, 30 s": one(pixels, 30 * scale, 1.0),
    }


def gaps(pixels: np.ndarray[Any, Any], scale: float) -> Result:
    from scipy.interpolate import griddata

    i, j = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    mask = (i + j) % 2 == 0
    planes = pixels.reshape(*pixels.shape[:2], -1).astype(float)
    known = np.stack([i[mask], j[mask]], axis=1)
    filled = griddata(known, planes[mask], (i[~mask], j[~mask]), method="cubic")
    inside = np.isfinite(filled).all(axis=1)
    wanted = planes[~mask]
    return {
        "cubic": psnr(np.clip(filled[inside], 0, 255), wanted[inside]),
        "field": one(pixels, 30 * scale, 0.5, mask=mask),
    }


def presets(pixels: np.ndarray[Any, Any], scale: float) -> Result:
    return {
        name: one(pixels, 30 * scale, 0.5, name) for name in ("hash", "fourier", "siren", "relu")
    }


def torch_grid() -> Any:
    """The grid of encodings.py, which is read by its path: Python has a module of that name."""
    path = Path(__file__).with_name("encodings.py")
    spec = importlib.util.spec_from_file_location("benchmarks_encodings", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.TorchGrid


def against_torch(pixels: np.ndarray[Any, Any], n_steps: int) -> Result:
    """The same steps in both: time a step, and the PSNR at the end."""

    import torch

    from lamina.fields.image import ImageSignal
    from lamina.fields.recipe import budget, recipe

    signal = ImageSignal(pixels, None, "benchmark")
    field = ImageField(rng=0)
    _, spent = clocked(lambda: field.fit(pixels, max_steps=n_steps, params_per_value=0.5))
    chosen = recipe("hash", signal, budget(None, 0.5, signal.n_values, "benchmark"), 0)
    net = chosen.network(0)
    mean, spread = signal.statistics()
    x, values = signal.rows(np.arange(signal.n_rows))
    t_x = torch.from_numpy(x)
    t_y = torch.from_numpy(((values - mean) / spread).astype(np.float32))
    layers: list[torch.nn.Module] = [torch_grid()(net.encoding, 2, net.table.copy())]
    for layer, (weight, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data, linear.bias.data = (torch.from_numpy(a.copy()) for a in (weight, bias))
        layers += [linear] if layer == len(net.spec.widths) else [linear, torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers)
    adam = torch.optim.Adam(model.parameters(), betas=(0.9, 0.99), eps=1e-15)
    batch, rng = field.report.batch_size, torch.Generator().manual_seed(0)

    def train() -> None:
        order = torch.randperm(signal.n_rows, generator=rng)
        at = 0
        for step in range(n_steps):
            if at >= signal.n_rows:
                order, at = torch.randperm(signal.n_rows, generator=rng), 0
            index = order[at : at + batch]
            at += batch
            for group in adam.param_groups:
                group["lr"] = chosen.learning_rate(step / n_steps)
            adam.zero_grad()
            torch.nn.functional.mse_loss(model(t_x[index]), t_y[index]).backward()
            adam.step()

    _, peer = clocked(train)
    with torch.inference_mode():
        y = torch.cat([model(part) for part in t_x.split(1 << 16)]).numpy() * spread + mean
    theirs = psnr(signal.form.finish(y), signal.pixels.reshape(-1, signal.d_out))
    return {
        "steps": n_steps,
        "lamina": {"psnr": field.report.psnr, **spent},
        "torch": {"psnr": theirs, **peer},
        "ratio": peer["wall"] / spent["wall"],
        "cpu_ratio": peer["cpu"] / spent["cpu"],
    }


def measure(data: Path, cases: list[str], scale: float, n_steps: int) -> Result:
    """Every case whose files are there."""
    found: Result = {"missing": []}
    for name in PHOTOS:
        path = data / "images" / name
        if not path.is_file():
            found["missing"].append(name)
            continue
        pixels = read_image(path)
        each: Result = {}
        if "photos" in cases:
            each |= photo(pixels, scale)
        if "gaps" in cases:
            each["gaps"] = gaps(pixels, scale)
        if "presets" in cases and name == PHOTOS[0]:
            each["presets"] = presets(pixels, scale)
        if "torch" in cases:
            each["torch"] = against_torch(pixels, n_steps)
        found[name] = each
    retina, guitar = data / "images" / "retina.jpg", data / "audio" / "guit_em9.flac"
    if "retina" in cases and retina.is_file():
        found["retina.jpg"] = {"half, 60 s": one(read_image(retina), 60 * scale, 0.5)}
    if "guitar" in cases and guitar.is_file():
        samples, rate = read_audio(guitar)
        samples = samples[: int(10 * rate)]
        found["guit_em9.flac"] = {"half, 60 s": one(samples, 60 * scale, 0.5, rate=rate)}
    return found


def rows(found: Result, prefix: str = "") -> list[tuple[str, str]]:
    """The numbers of nested results, one a line."""
    lines = []
    for name, value in found.items():
        if isinstance(value, dict):
            lines += rows(value, f"{prefix}{name}: ")
        else:
            text = f"{value:.3f}" if isinstance(value, float) else str(value)
            lines.append((f"{prefix}{name}", text))
    return lines


@click.command(help=(__doc__ or "").replace("::\n", "\b"))
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--cases", default=",".join(CASES), help="Names, with commas between.")
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    help="Of every time limit, for a quick look.",
)
@click.option("--torch-steps", type=click.IntRange(1), default=300)
@click.option("--out", type=click.Path(path_type=Path), help="Write JSON.")
def main(data: Path, cases: str, share: float, torch_steps: int, out: Path | None) -> None:
    names = cases.split(",")
    if unknown := sorted(set(names) - set(CASES)):
        raise click.ClickException(f"expected cases of {', '.join(CASES)}, got {unknown}.")
    found = measure(data, names, share, torch_steps)
    table = Table("what", "value")
    for row in rows(found):
        table.add_row(*row)
    Console().print(table)
    if out is not None:
        document: Result = {
            "host": host.describe(host.n_cpus()),
            "threads": default_n_threads(None),
            "share": share,
        }
        out.write_text(json.dumps(document | found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
