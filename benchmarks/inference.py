"""Time a network on few rows beside onnxruntime, call by call in one process.

::

    python benchmarks/inference.py                     both networks, 1 to 1024 rows
    python benchmarks/inference.py --networks A --seconds 1

``engine.py`` gives each engine a process of its own and many rounds; this one takes a minute and
shows what a call costs. The engines take turns; each sample comes after a pause, so that no thread
pool still spins from the one before, and a few calls that are not timed. Times are microseconds a
call, minimum and median; the ratio is onnxruntime's best over lamina's.
"""

from __future__ import annotations

import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import onnxruntime as ort

import lamina

NETWORKS = {"A": (20, (100,), 2), "B": (784, (512, 512), 10)}
ROWS = (1, 2, 4, 8, 16, 32, 64, 256, 1024)
SAMPLE_SECONDS = 2e-3
PAUSE_SECONDS = 5e-3


def measure(calls: dict[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
    """Return microseconds a call, sample by sample, the engines in turn."""
    timers = {name: timeit.Timer(call) for name, call in calls.items()}
    numbers = {}
    for name, timer in timers.items():
        timer.timeit(2)
        numbers[name] = max(1, int(SAMPLE_SECONDS / (timer.timeit(3) / 3)))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, timer in timers.items():
            time.sleep(PAUSE_SECONDS)
            timer.timeit(max(1, numbers[name] // 2))
            samples[name].append(timer.timeit(numbers[name]) / numbers[name] * 1e6)
    return samples


def session(net: lamina.Network, n_threads: int) -> ort.InferenceSession:
    """Return the network in onnxruntime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = n_threads
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        lamina.to_onnx(net, path)
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@click.command(help=(__doc__ or "").replace("::\n", "\b"))
@click.option("--networks", default="AB", help="Letters of A and B.")
@click.option("--seconds", type=click.FloatRange(0), default=3.0, help="A number of rows.")
def main(networks: str, seconds: float) -> None:
    n_threads = lamina.info()["n_threads"]
    for name in networks:
        d_in, widths, d_out = NETWORKS[name]
        net = lamina.Network(d_in, widths, d_out, output="softmax", rng=0)
        peers = {f"onnxruntime-{n}": session(net, n) for n in sorted({1, n_threads})}
        for n in ROWS:
            x = np.random.default_rng(0).normal(size=(n, d_in)).astype(np.float32)
            out = np.empty((n, d_out), np.float32)
            calls: dict[str, Callable[[], object]] = {
                "lamina": lambda net=net, x=x: net(x),
                "lamina out=": lambda net=net, x=x, out=out: net(x, out),
            }
            for peer, run in peers.items():
                feed = {run.get_inputs()[0].name: x}
                if not np.allclose(run.run(None, feed)[0], net(x), atol=1e-5):
                    raise click.ClickException(f"{peer} computes something else.")
                calls[peer] = lambda run=run, feed=feed: run.run(None, feed)
            samples = measure(calls, seconds)
            times = {key: (np.min(each), np.median(each)) for key, each in samples.items()}
            best = [min(times[peer][i] for peer in peers) / times["lamina"][i] for i in (0, 1)]
            row = "  ".join(f"{key} {low:.2f}/{mid:.2f}" for key, (low, mid) in times.items())
            click.echo(f"{name} {n:5d} rows  {row}  ratio {best[0]:.2f}/{best[1]:.2f}")


if __name__ == "__main__":
    main()
