"""A network's health while it trains: a callback that looks every few epochs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lamina.core.checks import check_count
from lamina.core.errors import SpecError
from lamina.core.history import EpochReport
from lamina.core.losses import Loss
from lamina.core.network import Network
from lamina.theory.diagnosis import Diagnosis, check_rows, look

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WHERE = "LiveDiagnosis"


class LiveDiagnosis:
    """A callback for ``lamina.train`` that diagnoses the network as it learns.

    Parameters
    ----------
    net : Network
        The one that is trained.
    x : array-like (n, d_in), n ≥ 2, finite
        Rows to look at; some hundred are enough.
    y : array-like, optional
        Their targets; with them there are gradients of the weights.
    loss : str or loss object, optional
        The one trained with; None follows the output unit.
    every : int ≥ 1, default 1
        Look after every so many epochs: a forward and a backward pass in float64, and a singular
        value decomposition a layer.
    report : callable, optional
        Called with a line of text each time, and one for each new verdict: ``print``, or a
        logger's ``info``.

    Attributes
    ----------
    epochs : list of int
        Epochs looked after, from 1; 0 is the network as it was when this was made.
    diagnoses : list of Diagnosis
        One for each.
    updates : list of lists of float
        For each of them, |change of W| / |W| since the one before, a number a layer; zeros first.

    Raises
    ------
    SpecError, ShapeError, DataError
        As for `diagnose`.

    Examples
    --------
    >>> import lamina, numpy as np
    >>> from lamina import theory
    >>> x = np.random.default_rng(0).normal(size=(64, 2))
    >>> y = x[:, :1] * x[:, 1:]
    >>> net = lamina.Network(2, (16, 16), 1, rng=0)
    >>> live = theory.LiveDiagnosis(net, x, y, every=5)
    >>> _ = lamina.train(net, x, y, max_epochs=10, callbacks=live, rng=0)
    >>> live.epochs, live.diagnoses[-1].healthy
    ([0, 5, 10], True)
    """

    def __init__(
        self,
        net: Network,
        x: npt.ArrayLike,
        y: npt.ArrayLike | None = None,
        loss: str | Loss | None = None,
        *,
        every: int = 1,
        report: Callable[[str], object] | None = None,
    ) -> None:
        if not isinstance(net, Network):
            raise SpecError(
                f"{_WHERE}: expected the lamina.Network that is trained, got "
                f"{type(net).__name__}. Pass the network itself."
            )
        self.net = net
        self.every = check_count(every, "every", _WHERE)
        self.report = report
        self._rows = check_rows(net, net, x, y, loss, _WHERE)
        self._weights = [w.astype(np.float64) for w in net.weights]
        self._said: set[tuple[str, int | None]] = set()
        self.epochs: list[int] = []
        self.diagnoses: list[Diagnosis] = []
        self.updates: list[list[float]] = []
        self._record(0)

    def __call__(self, report: EpochReport) -> None:
        """Look, if it is time to; called by ``lamina.train`` after each epoch."""
        if (report.epoch + 1) % self.every == 0:
            self._record(report.epoch + 1)

    def _record(self, epoch: int) -> None:
        diagnosis = look(self.net, *self._rows)
        now = [w.astype(np.float64) for w in self.net.weights]
        update = [_change(a, b) for a, b in zip(self._weights, now, strict=True)]
        self._weights = now
        self.epochs.append(epoch)
        self.diagnoses.append(diagnosis)
        self.updates.append(update)
        if self.report is None:
            return
        self.report(_line(epoch, diagnosis, update))
        for verdict in diagnosis.verdicts:
            if (verdict.kind, verdict.layer) not in self._said:
                self._said.add((verdict.kind, verdict.layer))
                self.report(f"  {verdict}")

    def curves(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return what changed over the epochs, arrays (n_records, n_layers).

        ``dead``, ``saturated``, ``linear``: shares of units; ``spread``, ``backward``: as in
        `LayerSignals`; ``gradient_ratio``: |d loss / d W| / |W|; ``update``: |change of W| / |W|
        since the record before. NaN where there is none.
        """

        def table(name: str) -> npt.NDArray[np.float64]:
            rows = [[_number(getattr(layer, name)) for layer in d.layers] for d in self.diagnoses]
            return np.array(rows, np.float64)

        def share(name: str) -> npt.NDArray[np.float64]:
            rows = [
                [len(getattr(layer, name)) / layer.width for layer in d.layers]
                for d in self.diagnoses
            ]
            return np.array(rows, np.float64)

        return {
            **{name: share(name) for name in ("dead", "saturated", "linear")},
            **{name: table(name) for name in ("spread", "backward", "gradient_ratio")},
            "update": np.array(self.updates, np.float64),
        }

    def plot(self) -> Figure:
        """Return a figure of the curves, a line a layer (needs matplotlib)."""
        from lamina.plots.health import plot_health_curves

        found = self.curves()
        panels = {
            "spread of h over rows": found["spread"],
            "length of d loss / d z": found["backward"],
            "change of W, over W": found["update"],
        }
        if np.isfinite(found["gradient_ratio"]).any():
            panels["d loss / d W, over W"] = found["gradient_ratio"]
        log = list(panels)
        for name in ("dead", "saturated"):
            if found[name].any() or name == "dead":
                panels[f"{name} units, share"] = found[name]
        return plot_health_curves(np.array(self.epochs), panels, log=log)

    def to_dict(self) -> dict[str, Any]:
        """Return epochs, diagnoses and updates as JSON types."""
        return {
            "epochs": list(self.epochs),
            "updates": [list(update) for update in self.updates],
            "diagnoses": [diagnosis.to_dict() for diagnosis in self.diagnoses],
        }

    def __str__(self) -> str:
        records = zip(self.epochs, self.diagnoses, self.updates, strict=True)
        return "\n".join(_line(*record) for record in records)

    __repr__ = __str__


def _line(epoch: int, diagnosis: Diagnosis, update: list[float]) -> str:
    idle = [
        f"{sum(len(getattr(layer, name)) for layer in diagnosis.layers)} {name}"
        for name in ("dead", "saturated")
        if any(len(getattr(layer, name)) for layer in diagnosis.layers)
    ]
    loss = "" if diagnosis.loss is None else f"  loss {diagnosis.loss:.4g}"
    changed = f"  weights changed {max(update):.1%}" if any(update) else ""
    words = ", ".join(dict.fromkeys(v.kind.replace("_", " ") for v in diagnosis.verdicts))
    return (
        f"epoch {epoch:>4}{loss}{changed}{'  ' if idle else ''}{', '.join(idle)}"
        f"  {words or 'healthy'}"
    )


def _change(before: npt.NDArray[np.float64], now: npt.NDArray[np.float64]) -> float:
    size = float(np.linalg.norm(now))
    return float(np.linalg.norm(now - before)) / size if size else 0.0


def _number(value: float | None) -> float:
    return np.nan if value is None else value
