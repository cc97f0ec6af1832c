"""The tables of benchmarks/tables.py: each a frame and its target, divided by seed.

Those of scikit-learn come with it; the others are read from a folder (`--data`) that holds the
files named below, all of them well-known public tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn import datasets

MOST_ROWS = 10_000  # to train on, and to test on
KNOWN_AFTER_DEPARTURE = ["dep_time", "dep_delay", "arr_time", "air_time"]

Table = tuple[pd.DataFrame, str, bool]  # frame, target, whether it is of classes


@dataclass(frozen=True)
class Split:
    """One table, divided into rows to train on and rows to test on.

    y are class indices in 0 … K-1, each with at least one training row, or numbers.
    """

    name: str
    is_classes: bool
    X_train: pd.DataFrame
    y_train: np.ndarray[Any, Any]
    X_test: pd.DataFrame
    y_test: np.ndarray[Any, Any]

    def error(self, prediction: Any) -> float:
        """Log-loss of probabilities (n, K), or 1 - R² of numbers (n,)."""
        if not self.is_classes:
            residual = ((self.y_test - np.asarray(prediction, float)) ** 2).sum()
            return float(residual / ((self.y_test - self.y_test.mean()) ** 2).sum())
        p = np.clip(np.asarray(prediction, float), 1e-15, None)
        p /= p.sum(axis=1, keepdims=True)
        return float(-np.log(p[np.arange(len(p)), self.y_test]).mean())


def _parquet(file: str, target: str, is_classes: bool) -> Callable[[Path], Table]:
    return lambda data: (pd.read_parquet(data / f"{file}.parquet"), target, is_classes)


def _csv(file: str, target: str, *, drop: tuple[str, ...] = (), **options: Any) -> Any:
    def load(data: Path) -> Table:
        frame = pd.read_csv(data / f"{file}.csv", **options)
        return frame.drop(columns=list(drop)), target, False

    return load


def _flights(is_classes: bool) -> Callable[[Path], Table]:
    def load(data: Path) -> Table:
        frame = pd.read_parquet(data / "nycflights.parquet").drop(columns=KNOWN_AFTER_DEPARTURE)
        frame = frame.dropna(subset=["arr_delay"]).reset_index(drop=True)
        if is_classes:
            frame["late"] = np.where(frame.pop("arr_delay") > 15, "late", "in time")
            return frame, "late", True
        return frame, "arr_delay", False

    return load


def _shipped(load: Callable[..., Any], is_classes: bool) -> Callable[[Path], Table]:
    return lambda _: (load(as_frame=True).frame.copy(), "target", is_classes)


TABLES: dict[str, Callable[[Path], Table]] = {
    "adult": _parquet("adult", "income", True),
    "california": _parquet("california_housing", "MedHouseVal", False),
    "diamonds": _parquet("diamonds", "price", False),
    "nyc_delay": _flights(False),
    "nyc_late": _flights(True),
    "ames": _parquet("ames", "price", False),
    "casp": _csv("CASP", "RMSD"),
    "nursery": _parquet("nursery", "Class", True),
    "letter": _parquet("letter", "lettr", True),
    # The other two costs add up to the target
    "birdstrikes": _csv(
        "birdstrikes",
        "Cost Total $",
        drop=("Cost Other", "Cost Repair"),
        parse_dates=["Flight Date"],
    ),
    "flights": _parquet("flights-3m", "delay", False),
    "iris": _shipped(datasets.load_iris, True),
    "wine": _shipped(datasets.load_wine, True),
    "cancer": _shipped(datasets.load_breast_cancer, True),
    "digits": _shipped(datasets.load_digits, True),
    "diabetes": _shipped(datasets.load_diabetes, False),
}
SHIPPED = ("iris", "wine", "cancer", "digits", "diabetes")


def split(name: str, seed: int, data: Path) -> Split:
    """Divide a table: at most `MOST_ROWS` to train on, as many to test on, drawn by the seed."""
    frame, target, is_classes = TABLES[name](data)
    order = np.random.default_rng([seed, 17]).permutation(len(frame))
    n_train = min(MOST_ROWS, int(0.8 * len(frame)))
    train, test = order[:n_train], order[n_train : n_train + MOST_ROWS]
    y = frame.pop(target)
    if is_classes:
        codes = np.unique(y.astype(str), return_inverse=True)[1]
        seen = np.unique(codes[train])  # rows of other classes cannot be scored
        test = test[np.isin(codes[test], seen)]
        values = np.searchsorted(seen, codes)
    else:
        values = y.to_numpy(float)
    return Split(
        name,
        is_classes,
        frame.iloc[train].reset_index(drop=True),
        values[train],
        frame.iloc[test].reset_index(drop=True),
        values[test],
    )
