"""Measure grids within a bound: bytes beside zfp's and SZ3's at the same bound, times of reading.

::

    python benchmarks/fields_volumes.py --out benchmarks/results/fields_volumes.json
    python benchmarks/fields_volumes.py --report           rewrite docs/fields.md from that run

Three volumes of 128³ are made up: turbulence (the spectrum k^(-11/3) with a viscous end, float32),
a CT phantom (ellipsoids, blurred, with noise, int16), a signed distance (float32). Files of --data
FOLDER (.npy of three axes) are measured as well. Peers have the coarsest setting that keeps the
bound: zfp in fixed-accuracy mode, which cannot be read in parts, and in fixed-rate mode, which can;
SZ3 (pysz of requirements/bench.txt), which cannot. `networks` stores the same volumes with a
trained network inside, which is what made the constant the default.
"""

from __future__ import annotations

import importlib.util
import json
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from report import markdown_table

import lamina
from lamina.bench import host
from lamina.core.threads import default_n_threads
from lamina.fields import VolumeField

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "fields_volumes.json"
PAGE = HERE.parent / "docs" / "fields.md"
SHARE = 1e-3
NETWORKS = (("siren", 5_000), ("hash", 26_000))

Array = np.ndarray[Any, Any]
Result = dict[str, Any]


def turbulence(n: int) -> Array:
    rng = np.random.default_rng(0)
    k = np.fft.fftfreq(n) * n
    radius = np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :] ** 2)
    size = np.maximum(radius, 1.0) ** (-11 / 6) * np.exp(-((radius / (n / 4)) ** 2)) * (radius > 0)
    waves = np.fft.fftn(rng.normal(size=(n, n, n))) * size
    return np.fft.ifftn(waves).real.astype(np.float32)


def phantom(n: int) -> Array:
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    z, y, x = np.mgrid[:n, :n, :n].astype(np.float32) * 2 / n - 1
    body = np.full((n, n, n), -1000.0, np.float32)
    body[(x / 0.85) ** 2 + (y / 0.7) ** 2 + (z / 0.95) ** 2 < 1] = 40
    for _ in range(24):
        middle, radius = rng.uniform(-0.5, 0.5, 3), rng.uniform(0.05, 0.25, 3)
        place = ((a - c) / r for a, c, r in zip((x, y, z), middle, radius, strict=True))
        body[sum(p * p for p in place) < 1] = rng.choice([-800, -100, 20, 60, 300, 900])
    return np.rint(gaussian_filter(body, 0.7) + rng.normal(0, 10, body.shape)).astype(np.int16)


def distance(n: int) -> Array:
    z, y, x = np.mgrid[:n, :n, :n].astype(np.float32) * 2 / n - 1
    found = np.hypot(np.hypot(x, y) - 0.55, z) - 0.2
    for a, b, c in ((0.5, 0.3, 0.3), (-0.4, -0.2, 0.4), (0.0, 0.1, -0.5)):
        found = np.minimum(found, np.hypot(np.hypot(x - a, y - b), z - c) - 0.25)
    return np.asarray(found, np.float32)


MADE: dict[str, Callable[[int], Array]] = {
    "turbulence": turbulence,
    "phantom": phantom,
    "distance": distance,
}


def clocked(call: Callable[[], Any], repeats: int = 1) -> tuple[Any, float, float]:
    """What `call` returns, and medians of the seconds of the clock and of the CPUs."""
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        value = call()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return value, statistics.median(walls), statistics.median(cpus)


def ours(volume: Array, bound: float, folder: Path) -> Result:
    field, wall, cpu = clocked(lambda: VolumeField(rng=0).fit(volume, max_error=bound))
    path = folder / "volume.lamina"
    field.save(path)
    off = np.abs(field.render().astype(np.float64) - volume.astype(np.float64))
    assert float(off.max()) <= bound
    slices = []
    for axis in range(3):
        index: Any = [slice(None)] * 3
        index[axis] = volume.shape[axis] // 3

        def read(index: Any = tuple(index)) -> int:
            loaded = lamina.load(path)
            part = loaded[index]
            assert np.abs(part.astype(np.float64) - volume[index]).max() <= bound
            return int(loaded.residual.n_blocks_read)

        n_read, seconds, cpu_seconds = clocked(read, 5)
        slices.append({"blocks": n_read, "wall": seconds, "cpu": cpu_seconds})
    _, whole, whole_cpu = clocked(lambda: lamina.load(path).render(), 3)
    return {
        "bytes": path.stat().st_size,
        "largest_error": float(off.max()),
        "encode": {"wall": wall, "cpu": cpu},
        "decode": {"wall": whole, "cpu": whole_cpu},
        "blocks": field.residual.layout.n_blocks,
        "slices": slices,
    }


def coarsest(
    pack: Callable[[float], bytes],
    unpack: Callable[[bytes], Array],
    volume: Array,
    room: float,
    settings: list[float],
) -> Result:
    """The first of `settings`, from coarse to fine, that keeps errors within `room`."""
    for setting in settings:
        packed, wall, cpu = clocked(lambda s=setting: pack(s))
        off = float(np.abs(unpack(packed).astype(np.float64) - volume).max())
        if off <= room:
            told = {"setting": setting, "bytes": len(packed), "largest_error": off}
            return told | {"encode": {"wall": wall, "cpu": cpu}}
    return {"bytes": None}


def peers(volume: Array, bound: float) -> Result:
    """Peers round to whole numbers too, so that they have half of one more room."""
    room = np.floor(bound) + 0.5 if volume.dtype.kind in "iu" else bound
    plain = volume.astype(np.float32)
    found: Result = {}
    if importlib.util.find_spec("zfpy"):
        import zfpy

        def unpack(data: bytes) -> Array:
            return np.asarray(zfpy.decompress_numpy(data))

        tolerances = [float(room * 2.0 ** (e / 4)) for e in range(20, -8, -1)]
        found["zfp"] = coarsest(
            lambda s: zfpy.compress_numpy(plain, tolerance=s), unpack, plain, room, tolerances
        )
        rates = [float(r) for r in np.arange(0.5, 24, 0.5)]
        found["zfp, fixed rate"] = coarsest(
            lambda s: zfpy.compress_numpy(plain, rate=s), unpack, plain, room, rates
        )
    if importlib.util.find_spec("pysz"):
        from pysz import sz, szConfig, szErrorBoundMode

        def pack(tolerance: float) -> bytes:
            config = szConfig(*plain.shape)
            config.errorBoundMode = szErrorBoundMode.ABS
            config.absErrorBound = tolerance
            packed = sz.compress(plain, config)
            return bytes(packed[0] if isinstance(packed, tuple) else packed)

        def unsz(data: bytes) -> Array:
            found = sz.decompress(np.frombuffer(data, np.uint8), np.float32, plain.shape)
            return np.asarray(found[0] if isinstance(found, tuple) else found)

        found["SZ3"] = coarsest(pack, unsz, plain, room, [room, room * (1 - 1e-6)])
    return found


def networks(volume: Array, bound: float, seconds: float) -> Result:
    """Bytes with a trained network inside: 4 a parameter, and 1 if they were stored in 8 bits."""
    found = {}
    for preset, n_params in NETWORKS:
        field = VolumeField(preset, rng=0).fit(
            volume, max_error=bound, n_params=n_params, max_seconds=seconds
        )
        found[preset] = {
            "n_params": field.n_params,
            "bytes": field.n_bytes,
            "bytes_8_bits": field.n_bytes - 3 * field.n_params,
        }
    return found


def measure(volume: Array, folder: Path, seconds: float) -> Result:
    bound = SHARE * (float(volume.max()) - float(volume.min()))
    found = {"shape": list(volume.shape), "dtype": str(volume.dtype), "bytes": volume.nbytes}
    found |= {"bound": bound, "lamina": ours(volume, bound, folder)} | peers(volume, bound)
    if seconds:
        found["networks"] = networks(volume, bound, seconds)
    return found


def size(result: Result | None) -> str:
    return "" if not result or result["bytes"] is None else f"{result['bytes'] / 1000:,.0f}"


def table(results: Result) -> str:
    """Return the block of docs/fields.md."""
    names = ("lamina", "zfp", "SZ3", "zfp, fixed rate")
    head = ["kB at 0.1 % of the range", "raw", *names, "encode", "decode", "a slice", "blocks"]
    rows, inside = [], []
    for name, each in results["volumes"].items():
        own = each["lamina"]
        shape = " x ".join(map(str, each["shape"]))
        slowest = max(own["slices"], key=lambda s: s["cpu"])
        rows.append(
            [
                f"{name}, {shape}, {each['dtype']}",
                f"{each['bytes'] / 1000:,.0f}",
                *(size(each.get(peer)) for peer in names),
                *(f"{own[what]['cpu']:.1f} s" for what in ("encode", "decode")),
                f"{slowest['cpu']:.2f} s",
                f"{slowest['blocks']} of {own['blocks']}",
            ]
        )
        for preset, net in each.get("networks", {}).items():
            stored = net["bytes_8_bits"] / own["bytes"]
            inside.append(f"{name} {stored:.2f} ({preset}, {net['n_params']:,} parameters)")
    cpu = results["host"]["cpu"]
    note = (
        f"An {cpu['machine']} processor ({cpu['isa']}); CPU seconds, medians; every sample of "
        "every file checked. A slice: the slowest of three directions, with loading the file."
    )
    fast = [
        f"{peer} {max(e[peer]['encode']['cpu'] for e in results['volumes'].values()):.2f} s"
        for peer in ("zfp", "SZ3")
        if all(peer in e for e in results["volumes"].values())
    ]
    if fast:
        note += f" Encoding takes {' and '.join(fast)}, in compiled code."
    if inside:
        note += (
            " With a trained network in place of the constant, its weights counted as a byte each, "
            f"files were so many times as large: {'; '.join(inside)}."
        )
    return f"{markdown_table(head, rows)}\n\n{note}"


def write_page(results: Result) -> None:
    block = f"<!-- volumes:start -->\n{table(results)}\n<!-- volumes:end -->"
    page = PAGE.read_text(encoding="utf-8")
    pattern = "<!-- volumes:start -->.*?<!-- volumes:end -->"
    PAGE.write_text(re.sub(pattern, lambda _: block, page, flags=re.DOTALL), encoding="utf-8")


@click.command(help=(__doc__ or "").replace("::\n", "\b"))
@click.option("--data", type=click.Path(exists=True, path_type=Path))
@click.option("--side", type=click.IntRange(16), default=128, help="Samples along each axis.")
@click.option(
    "--network-seconds", type=click.FloatRange(0), default=8.0, help="For each; 0 leaves them out."
)
@click.option("--out", type=click.Path(path_type=Path), help="Write JSON.")
@click.option("--report", is_flag=True, help="Rewrite docs/fields.md from the last run.")
def main(
    data: Path | None, side: int, network_seconds: float, out: Path | None, report: bool
) -> None:
    if report:
        write_page(json.loads(RESULTS.read_text(encoding="utf-8")))
        return
    import tempfile

    volumes: Result = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in MADE.items():
            volumes[name] = measure(make(side), Path(folder), network_seconds)
            print(name, json.dumps(volumes[name]), file=sys.stderr)
        for path in sorted(data.glob("*.npy")) if data is not None else ():
            volume = np.load(path, mmap_mode="r")
            if volume.ndim == 3:
                volumes[path.stem] = measure(volume, Path(folder), network_seconds)
    document: Result = {
        "host": host.describe(host.n_cpus()),
        "threads": default_n_threads(None),
        "share": SHARE,
        "volumes": volumes,
    }
    print(table(document))
    if out is not None:
        out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
