"""The workloads: what is computed, on which rows, and the same data and weights for every engine.

Rows and first weights come from NumPy and a fixed seed, so that each process makes them again for
itself and all engines see the same bits.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

SEED = 0
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Workload:
    """A ReLU network and what is done with it.

    Attributes
    ----------
    name : str
        What the command line and the JSON call it.
    kind : {"train", "fit", "infer"}
        train: one step is row gather + forward + backward + Adam, rows shuffled every epoch.
        fit: a whole ``MLPClassifier.fit``. infer: y_pred of `n` rows.
    d_in, widths, d_out : int, tuple of int, int
    n : int
        Rows; for train a whole number of batches.
    batch_size : int
    epochs : int
        train: epochs in one timed call. fit: max_iter.
    classes : bool
        Softmax and log loss on class indices; False is squared error on numbers.
    dtype : {"float32", "float64"}
    activation : {"relu", "gelu", "silu"}
        train only.
    n_threads : int, optional
        Instead of as many as the run has.
    """

    name: str
    kind: str
    d_in: int
    widths: tuple[int, ...]
    d_out: int
    n: int
    batch_size: int = 0
    epochs: int = 1
    classes: bool = True
    dtype: str = "float32"
    activation: str = "relu"
    n_threads: int | None = None

    @property
    def unit(self) -> str:
        """What one time is the time of."""
        return {"train": "step", "fit": "fit", "infer": "call"}[self.kind]

    @property
    def n_steps(self) -> int:
        """Steps an epoch."""
        return self.n // self.batch_size

    @property
    def title(self) -> str:
        """The network and its sizes in one line."""
        widths = "→".join(map(str, (self.d_in, *self.widths, self.d_out)))
        if self.kind == "infer":
            return f"{widths}, {self.n:,} row{'s' * (self.n > 1)}"
        detail = f"{widths}, batch {self.batch_size:,}"
        if self.kind == "fit":
            detail += f", {self.n:,} rows, {self.epochs} epochs"
        if self.activation != "relu":
            detail += f", {self.activation}"
        if self.n_threads:
            detail += f", {self.n_threads} thread{'s' * (self.n_threads > 1)}"
        if self.name.startswith("rows"):
            detail += f", {self.n:,} rows"
        return f"{detail}, {self.dtype}"

    @property
    def flops(self) -> int:
        """Operations that a step needs: 2 a weight and row forward, 4 backward.

        The gradient by the input, which nobody needs, is not counted.
        """
        dims = (self.d_in, *self.widths, self.d_out)
        weights = sum(a * b for a, b in itertools.pairwise(dims))
        return (6 * weights - 2 * dims[0] * dims[1]) * self.batch_size

    def sizes(self) -> dict[str, Any]:
        """Everything that defines it, for the JSON."""
        return asdict(self)

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Return x (n, d_in) and a target that can be learnt: int64 (n,) or (n, d_out)."""
        rng = np.random.default_rng(SEED)
        dtype: Any = np.dtype(self.dtype)
        x = rng.standard_normal((self.n, self.d_in), dtype=dtype)
        teacher = rng.standard_normal((self.d_in, self.d_out), dtype=dtype)
        score = x @ teacher / np.sqrt(self.d_in, dtype=self.dtype)
        return x, score.argmax(axis=1) if self.classes else np.sin(score)

    def layers(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return each layer's first weight (d_l, d_{l-1}), He-normal, and bias, zero."""
        rng = np.random.default_rng(SEED + 1)
        sides = itertools.pairwise((self.d_in, *self.widths, self.d_out))
        return [
            (
                (rng.standard_normal((d_out, d_in)) * np.sqrt(2 / d_in)).astype(self.dtype),
                np.zeros(d_out, self.dtype),
            )
            for d_in, d_out in sides
        ]

    def error(self, x: np.ndarray, y_pred: np.ndarray) -> float:
        """Return the largest error of y_pred (n, d_out), against float64 NumPy."""
        if y_pred.shape != (len(x), self.d_out):
            return float("inf")
        n = 4096  # rows at once: the hidden layers of all would be gigabytes
        worst = [
            np.abs(self._predict(x[i : i + n]) - y_pred[i : i + n]).max()
            for i in range(0, len(x), n)
        ]
        return float(np.max(worst))  # NaN stays NaN

    def _predict(self, x: np.ndarray) -> np.ndarray:
        h = x.astype(np.float64)
        *hidden, (weight, bias) = self.layers()
        for hidden_weight, hidden_bias in hidden:
            h = np.maximum(h @ hidden_weight.T + hidden_bias, 0)
        z = h @ weight.T + bias
        if not self.classes:
            return np.asarray(z)
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return np.asarray(e / e.sum(axis=1, keepdims=True))

    def tiny(self) -> Workload:
        """Return a version that takes milliseconds: to try the benchmark, not to measure."""
        if self.kind == "infer":
            return replace(self, n=min(self.n, 64))
        batch_size = min(self.batch_size, 256)
        return replace(self, batch_size=batch_size, n=8 * batch_size, epochs=min(self.epochs, 2))


# Two networks that many people fit to tables, and to small images.
_A: dict[str, Any] = {"d_in": 20, "widths": (100,), "d_out": 2, "batch_size": 200}
_B: dict[str, Any] = {"d_in": 784, "widths": (512, 512), "d_out": 10, "batch_size": 256}
_FIELD: dict[str, Any] = {"d_out": 3, "n": 262_144, "batch_size": 65_536, "classes": False}
_N_INFER = (1, 32, 1024, 65_536)

# `epochs` keeps a timed call of the fastest engine in the order of 0.1 s where a step is small:
# what a user's call costs beside the steps is then in the time, and is not most of it.
WORKLOADS: dict[str, Workload] = {
    w.name: w
    for w in (
        Workload("A", "train", **_A, n=10_000, epochs=20),
        Workload("B", "train", **_B, n=20_480),
        Workload("C", "train", d_in=64, widths=(256,) * 3, **_FIELD),
        Workload("D", "train", d_in=32, widths=(64,) * 4, **_FIELD, epochs=2),
        Workload("E", "train", d_in=54, widths=(256,) * 3, d_out=7, n=61_440, batch_size=1024),
        Workload("A64", "train", **_A, n=10_000, epochs=20, dtype="float64"),
        Workload("B64", "train", **_B, n=20_480, dtype="float64"),
        Workload("fit-A", "fit", **_A, n=10_000, epochs=10, dtype="float64"),
        Workload("fit-B", "fit", **_B, n=10_240, epochs=3, dtype="float64"),
        *(
            Workload(f"infer-{name}-{n}", "infer", net["d_in"], net["widths"], net["d_out"], n)
            for name, net in (("A", _A), ("B", _B))
            for n in _N_INFER
        ),
    )
}
# Timed when named: what they are compared with is lamina itself, or torch.
EXTRAS: dict[str, Workload] = {
    w.name: w
    for w in (
        *(
            replace(WORKLOADS[name], name=f"activations-{name}-{activation}", activation=activation)
            for name in ("B", "C", "E")
            for activation in ("relu", "gelu", "silu")
        ),
        *(
            replace(WORKLOADS[name], name=f"threads-{name}-{count}", n_threads=count)
            for name in ("C", "D")
            for count in (1, 2)
        ),
        *(
            Workload(
                f"rows-{n}", "train", 8, (64,), 2, n, batch_size=200, epochs=max(1, 200_000 // n)
            )
            for n in (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
        ),
    )
}
ALL = {**WORKLOADS, **EXTRAS}
QUICK = ("A", "fit-A", "infer-A-1")


def find(name: str, quick: bool) -> Workload:
    """Return the workload of a name, tiny if `quick`."""
    workload = ALL[name]
    return workload.tiny() if quick else workload
