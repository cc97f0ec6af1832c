"""Measure scenes: how fast pictures that were held out are seen right.

::

    python benchmarks/fields_radiance.py --mesh bunny.ply      a mesh of yours; else a knot
    python benchmarks/fields_radiance.py --parts hash          five minutes alone
    python benchmarks/fields_radiance.py --report              rewrite docs/fields.md

100 training views of 200 x 200 and 20 held out, drawn by examples/make_scene.py. The hash preset
has --seconds, and is compressed, tuned for 15 s each time. `classic` and the same network in
PyTorch (as users write it: the same rays a step, samples, Adam, and volume rendering by autograd)
take turns, --turn seconds of each, until both have had --classic seconds; the time to 24 dB is of
pixels spread over all held-out pictures.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

import lamina
from lamina.fields import RadianceField, Views, compress, read_views
from lamina.fields.fit import Limits
from lamina.fields.radiance import encode_directions, networks
from lamina.fields.radiance_fit import CLASSIC_LR, CLASSIC_RAYS, RadianceFitting
from lamina.fields.radiance_render import COARSE, FINE, Frame, narrowed

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "fields_radiance.json"
PAGE = HERE.parent / "docs" / "fields.md"
Array = np.ndarray[Any, Any]
WANTED = 24.0  # dB
TUNING = 15.0  # seconds, of a compressed scene
JUDGED = 4096  # pixels of all held-out views


def hash_part(train: Views, test: Views, depth: Array, seconds: float) -> dict[str, Any]:
    """Fit the hash preset and judge it on the held-out views."""
    since, cpu = time.perf_counter(), time.process_time()
    field = RadianceField(rng=0).fit(train, max_seconds=seconds)
    told = {
        "seconds": time.perf_counter() - since,
        "cpu_seconds": time.process_time() - cpu,
        "steps": field.report.n_steps,
        "n_params": field.n_params,
        "psnr": field.psnr(test),
    }
    off = []
    for camera, true in zip(test.cameras, depth, strict=True):
        seen = field.render_depth(camera)
        both = (true > 0) & np.isfinite(seen)
        off.append(np.abs(seen - true)[both])
    since = time.perf_counter()
    field.render(test.cameras[0])
    told["render_seconds"] = time.perf_counter() - since
    told |= {"depth_error": float(np.median(np.concatenate(off))), "bytes": field.n_file_bytes}
    return told | {"compressed": [compressed(field, bits, train, test) for bits in (8, 4, 2, 1)]}


def compressed(field: RadianceField, bits: float, train: Views, test: Views) -> dict[str, Any]:
    """Compress a scene, without and with its pictures."""
    told: dict[str, Any] = {"bits": bits, "plain": compress(field, bits).psnr(test)}
    since = time.perf_counter()
    small = compress(field, bits, signal=train, max_seconds=TUNING)
    seconds = time.perf_counter() - since
    return told | {"psnr": small.psnr(test), "bytes": small.n_file_bytes, "seconds": seconds}


class Ours:
    """`classic` in lamina, step by step."""

    def __init__(self, train: Views, frame: Frame, precision: str) -> None:
        limits = Limits.check("classic", None, 10**9, None, None)
        pair = networks("classic", 0, 0)
        self.fitting = RadianceFitting(
            "classic", pair, train, frame, limits, 0, None, precision, None, time.perf_counter()
        )
        self.fitting._learning_rate = lambda: CLASSIC_LR  # type: ignore[method-assign]

    def step(self) -> None:
        self.fitting._step()

    def see(self, origins: Array, directions: Array) -> Array:
        return self.fitting.tracer().see(origins, directions, np.ones(3))[0]


class Theirs(torch.nn.Module):
    """The same network, samples and steps in PyTorch."""

    def __init__(self, train: Views, frame: Frame) -> None:
        super().__init__()
        self.feed = Ours(train, frame, "float32").fitting
        width = 256
        sizes = [63] + [width] * 8
        self.trunk = torch.nn.ModuleList(
            torch.nn.Linear(sizes[i] + (63 if i == 5 else 0), width) for i in range(8)
        )
        self.out = torch.nn.Linear(width, 1 + width)
        self.colour = torch.nn.Sequential(
            torch.nn.Linear(width + 27, width // 2), torch.nn.ReLU(), torch.nn.Linear(width // 2, 3)
        )
        self.scales = torch.pi * 2.0 ** torch.arange(10)
        self.adam = torch.optim.Adam(self.parameters(), lr=CLASSIC_LR)

    def at(self, x: torch.Tensor) -> torch.Tensor:
        angles = x[:, :, None] * self.scales
        h0 = torch.cat([x, angles.sin().flatten(1), angles.cos().flatten(1)], dim=1)
        h = h0
        for i, layer in enumerate(self.trunk):
            h = torch.relu(layer(torch.cat([h, h0], dim=1) if i == 5 else h))
        return self.out(h)

    def shown(
        self, o: Any, d: Any, near: Any, far: Any, encoded: Any, background: Any, *, mixed: bool
    ) -> torch.Tensor:
        n = len(o)
        offset = torch.rand(n, COARSE) if mixed else torch.full((n, COARSE), 0.5)
        span = (far - near)[:, None]
        coarse = near[:, None] + span * ((torch.arange(COARSE) + offset) / COARSE)
        with torch.no_grad():
            places = (o[:, None] + coarse[:, :, None] * d[:, None]).clamp(-1, 1)
            optical = self.at(places.reshape(-1, 3))[:, 0].exp().view(n, COARSE) * span / COARSE
            before = optical.cumsum(1) - optical
            weights = (-before).exp() * (1 - (-optical).exp()) + 1e-5
            total = torch.cat([torch.zeros(n, 1), weights.cumsum(1)], 1)
            total = total / total[:, -1:]
            offset = torch.rand(n, FINE) if mixed else torch.full((n, FINE), 0.5)
            wanted = (torch.arange(FINE) + offset) / FINE
            piece = torch.searchsorted(total, wanted, right=True).clamp(1, COARSE) - 1
            low, high = total.gather(1, piece), total.gather(1, piece + 1)
            inside = ((wanted - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
            fine = near[:, None] + span * (piece + inside) / COARSE
        t = torch.cat([coarse, fine], 1).sort(1).values
        lengths = torch.cat([t[:, 1:], torch.maximum(far[:, None], t[:, -1:])], 1) - t
        places = (o[:, None] + t[:, :, None] * d[:, None]).clamp(-1, 1)
        said = self.at(places.reshape(-1, 3))
        optical = said[:, 0].clamp_max(12).exp().view(n, -1) * lengths
        views = encoded[:, None].expand(n, t.shape[1], -1).reshape(len(said), -1)
        colours = torch.sigmoid(self.colour(torch.cat([said[:, 1:], views], 1))).view(n, -1, 3)
        weights = (-(optical.cumsum(1) - optical)).exp() * (1 - (-optical).exp())
        return (weights[:, :, None] * colours).sum(1) + (1 - weights.sum(1))[:, None] * background

    def step(self) -> None:
        rays = [torch.tensor(a, dtype=torch.float32) for a in self.feed._draw()]
        o, d, near, far, background, target = rays
        encoded = torch.tensor(encode_directions("classic", d.numpy()))
        loss = (
            (self.shown(o, d, near, far, encoded, background, mixed=True) - target).square().mean()
        )
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()

    @torch.no_grad()
    def see(self, origins: Array, directions: Array) -> Array:
        rays = self.feed.frame.rays(origins, directions)
        near_far = narrowed(self.feed.occupancy, *rays)
        o, d, near, far = (torch.tensor(a, dtype=torch.float32) for a in (*rays[:2], *near_far))
        encoded = torch.tensor(encode_directions("classic", directions))
        parts = [
            self.shown(
                o[i], d[i], near[i], far[i], encoded[i], torch.ones(len(o[i]), 3), mixed=False
            ).numpy()
            for i in (slice(k, k + 512) for k in range(0, len(o), 512))
        ]
        return np.concatenate(parts)


def classic_part(train: Views, test: Views, turn: float, most: float) -> dict[str, Any]:
    """Let lamina and PyTorch take turns, and return when each reached `WANTED`."""
    frame = Frame.around(train, "benchmark")
    torch.set_num_threads(lamina.info()["n_threads"])
    torch.manual_seed(0)
    runs: dict[str, Any] = {"lamina": Ours(train, frame, "float32"), "torch": Theirs(train, frame)}
    if lamina.info()["precisions"]["bfloat16"]:
        runs["lamina, bfloat16"] = Ours(train, frame, "bfloat16")
    which = np.unique(np.linspace(0, test.pixels[..., 0].size - 1, JUDGED).astype(np.int64))
    size = test.pixels.shape[1] * test.pixels.shape[2]
    origins, directions = (
        np.concatenate(parts)
        for parts in zip(
            *(
                camera.rays(
                    (which[which // size == i] % size) % camera.width + 0.5,
                    (which[which // size == i] % size) // camera.width + 0.5,
                )
                for i, camera in enumerate(test.cameras)
            ),
            strict=True,
        )
    )
    true = test.colours(which, np.ones((len(which), 3), np.float32))
    told: dict[str, Any] = {
        name: {"seconds": 0.0, "cpu": 0.0, "steps": 0, "curve": [], "reached": None}
        for name in runs
    }
    while any(t["seconds"] < most and t["reached"] is None for t in told.values()):
        for name, run in runs.items():
            t = told[name]
            if t["seconds"] >= most or t["reached"] is not None:
                continue
            since, cpu = time.perf_counter(), time.process_time()
            while time.perf_counter() - since < turn:
                run.step()
                t["steps"] += 1
            t["seconds"] += time.perf_counter() - since
            t["cpu"] += time.process_time() - cpu
            error = float(np.mean((run.see(origins, directions) - true) ** 2))
            psnr = -10 * np.log10(error)
            t["curve"].append([round(t["seconds"], 1), t["steps"], round(psnr, 2)])
            if psnr >= WANTED:
                t["reached"] = t["seconds"]
            click.echo(f"{name}: {t['seconds']:.0f} s, {t['steps']} steps, {psnr:.2f} dB", err=True)
    return told


def table(results: dict[str, Any]) -> str:
    """Return the block of docs/fields.md."""
    lines = []
    if "hash" in results:
        r = results["hash"]
        lines += [
            f"`hash`, {r['n_params']:,} parameters: {r['psnr']:.1f} dB on 20 held-out views after "
            f"{r['seconds']:.0f} s ({r['cpu_seconds']:.0f} CPU seconds, {r['steps']:,} steps); a "
            f"view of 200 x 200 takes {r['render_seconds']:.2f} s; the median error of depths is "
            f"{r['depth_error']:.3f}, of a scene 2.3 across.",
            "",
            f"| bits a weight ({r['bytes']:,} bytes at 32) | bytes | dB | not tuned |",
            "| --- | --: | --: | --: |",
            *(
                f"| {c['bits']} | {c['bytes']:,} | {c['psnr']:.1f} | {c['plain']:.1f} |"
                for c in r["compressed"]
            ),
            "",
        ]
    if "classic" in results:
        lines += [
            f"| `classic` | seconds to {WANTED:g} dB | steps | ms a step | CPU ms | dB, end |",
            "| --- | --: | --: | --: | --: | --: |",
        ]
        for name, r in results["classic"].items():
            reached = "not reached" if r["reached"] is None else f"{r['reached']:.0f}"
            lines.append(
                f"| {name} | {reached} | {r['steps']:,} | {1000 * r['seconds'] / r['steps']:.0f} | "
                f"{1000 * r['cpu'] / r['steps']:.0f} | {r['curve'][-1][2]:.1f} |"
            )
        lines.append("")
    info = results["machine"]
    lines.append(
        f"{info['n_threads']} threads ({info['isa']}), {CLASSIC_RAYS} rays a step of `classic`."
    )
    return "\n".join(lines)


@click.command(help=(__doc__ or "").replace("::\n", "\b"))
@click.option("--mesh", type=click.Path(exists=True), help="Of the scene; a knot by default.")
@click.option("--parts", default="hash,classic", show_default=True)
@click.option("--seconds", default=300.0, show_default=True, help="Of the hash preset.")
@click.option("--classic", default=240.0, show_default=True, help="Seconds of each, at most.")
@click.option("--turn", default=20.0, show_default=True)
@click.option("--report", is_flag=True, help="Only rewrite the page.")
def main(
    mesh: str | None, parts: str, seconds: float, classic: float, turn: float, report: bool
) -> None:
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not report:
        with tempfile.TemporaryDirectory() as folder:
            script = HERE.parent / "examples" / "make_scene.py"
            chosen = [] if mesh is None else [mesh]
            subprocess.run([sys.executable, script, *chosen, "--out", folder], check=True)
            train, test = (read_views(f"{folder}/transforms_{k}.json") for k in ("train", "test"))
            depth = np.load(f"{folder}/test_depth.npz")["depth"]
        results["scene"] = "a knot" if mesh is None else Path(mesh).stem
        info = lamina.info()
        results["machine"] = {name: info[name] for name in ("isa", "n_threads", "machine")}
        if "hash" in parts:
            results["hash"] = hash_part(train, test, depth, seconds)
            click.echo(json.dumps(results["hash"]))
        if "classic" in parts:
            results["classic"] = classic_part(train, test, turn, classic)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    text = PAGE.read_text()
    begin, end = "<!-- radiance:start -->\n", "<!-- radiance:end -->"
    before, after = text.split(begin)[0], text.split(end)[1]
    PAGE.write_text(f"{before}{begin}{table(results)}\n{end}{after}")


if __name__ == "__main__":
    main()
