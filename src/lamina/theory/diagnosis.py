"""Is a network healthy? Its units, signals and gradients on given rows, and what to change."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lamina.bridges.sklearn import as_network
from lamina.core.checks import as_matrix, check_count
from lamina.core.derivative_losses import DerivativeLoss
from lamina.core.errors import DataError, SpecError
from lamina.core.jet_loss import JetLoss
from lamina.core.losses import Loss, Target, resolve_loss
from lamina.core.network import Network
from lamina.theory.layer_signals import LayerSignals, input_signal, measure
from lamina.theory.symptoms import Verdict, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis:
    """What `diagnose` found; print it.

    Attributes
    ----------
    network : str
        What was looked at.
    n_rows : int
    loss : float or None
        On these rows; None without y.
    layers : tuple of LayerSignals
        Layers 1 … L.
    verdicts : tuple of Verdict
        What hinders learning; empty for a healthy network.
    """

    network: str
    n_rows: int
    loss: float | None
    layers: tuple[LayerSignals, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def healthy(self) -> bool:
        """Whether there is no verdict."""
        return not self.verdicts

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON types; numbers that are not finite are None."""
        return {
            "network": self.network,
            "n_rows": self.n_rows,
            "loss": _json(self.loss),
            "healthy": self.healthy,
            "layers": [_layer_dict(layer) for layer in self.layers],
            "verdicts": [vars(verdict) for verdict in self.verdicts],
        }

    def plot(self) -> Figure:
        """Return a figure of signals, gradients and idle units by layer (needs matplotlib)."""
        from lamina.plots.health import plot_health

        return plot_health(
            [f"{layer.layer}\n{layer.activation}" for layer in self.layers],
            np.array([layer.spread for layer in self.layers]),
            np.array([_number(layer.backward) for layer in self.layers]),
            {
                "dead": np.array([len(layer.dead) / layer.width for layer in self.layers]),
                "saturated": np.array(
                    [len(layer.saturated) / layer.width for layer in self.layers]
                ),
                "linear": np.array([len(layer.linear) / layer.width for layer in self.layers]),
            },
        )

    def __str__(self) -> str:
        loss = "" if self.loss is None else f", loss {self.loss:.4g}"
        lines = [f"{self.network}", f"on {self.n_rows:,} rows{loss}", "", *_table(self.layers), ""]
        lines += [_KEY, ""]
        if self.healthy:
            lines.append("healthy: nothing found that hinders learning")
        lines += [f"- {verdict}" for verdict in self.verdicts]
        return "\n".join(lines)

    __repr__ = __str__


def diagnose(
    net: Any,
    x: npt.ArrayLike,
    y: npt.ArrayLike | None = None,
    loss: str | Loss | None = None,
    *,
    n_rows: int = 10_000,
) -> Diagnosis:
    """Look for what hinders a network from learning, layer by layer, and say what to change.

    Parameters
    ----------
    net : Network, or a fitted MLPClassifier or MLPRegressor
    x : array-like (n, d_in), n ≥ 2, finite
        Rows as the network sees them in training: scaled, if you scale them.
    y : array-like, optional
        Targets as for ``net.loss``; classes as in ``fit`` for an MLPClassifier. Without them,
        gradients are those of a random combination of the outputs, and weights have none.
    loss : str or loss object, optional
        As for ``net.loss``; None follows the output unit.
    n_rows : int ≥ 2, default 10000
        Look at no more rows than this, spread evenly over x. Memory is n_rows times all widths.

    Returns
    -------
    Diagnosis
        Printable: a table of layers, then verdicts. ``verdicts`` is empty for a healthy network;
        ``to_dict()`` for machines, ``plot()`` for a picture.

    Raises
    ------
    SpecError, ShapeError, DataError
        `net` is something else, `loss` is one of derivatives, or the rows do not fit.

    Notes
    -----
    Signals are compared from the input to the last hidden layer, gradients from the last hidden
    layer to the first: a factor of 100 either way is a verdict. Norms of d loss / d z over a
    layer stay level in a network of relu with He's first weights, of any widths.

    References
    ----------
    Glorot and Bengio (2010), "Understanding the difficulty of training deep feedforward neural
    networks"; He et al. (2015), arXiv:1502.01852; Lu et al. (2019), "Dying ReLU and
    initialization", arXiv:1903.06733.

    Examples
    --------
    >>> import lamina, numpy as np
    >>> from lamina import theory
    >>> x = np.random.default_rng(0).normal(size=(200, 4))
    >>> theory.diagnose(lamina.Network(4, (32, 32), 1, rng=0), x).healthy
    True
    >>> deep = lamina.Network(4, (32,) * 10, 1, activation="sigmoid", rng=0)
    >>> [verdict.kind for verdict in theory.diagnose(deep, x).verdicts]
    ['vanishing_signal', 'vanishing_gradient']
    """
    where = "diagnose"
    network = as_network(net, where)
    rows, target, resolved = check_rows(net, network, x, y, loss, where)
    most = check_count(n_rows, "n_rows", where, 2)
    if len(rows) > most:
        kept = np.linspace(0, len(rows) - 1, most).astype(np.intp)
        rows, target = rows[kept], None if target is None else target[kept]
    return look(network, rows, target, resolved)


def check_rows(
    model: Any,
    net: Network,
    x: npt.ArrayLike,
    y: npt.ArrayLike | None,
    loss: str | Loss | None,
    where: str,
) -> tuple[Array, Target | None, Loss]:
    """Return x, y and the loss, checked; `model` is what the user passed as network."""
    resolved = resolve_loss(loss, net.spec.output, where)
    if isinstance(resolved, DerivativeLoss | JetLoss):
        raise SpecError(
            f"{where}: expected a loss of predictions, got {resolved.name}, which reads "
            "derivatives too. Leave y out: gradients are then those of the outputs."
        )
    rows = as_matrix(x, "x", where, net.spec.d_in, net.spec.dtype, min_rows=2)
    if y is None:
        return rows, None, resolved
    return rows, resolved.check_data(rows, as_targets(model, y, where), net.spec, where), resolved


def as_targets(model: Any, y: npt.ArrayLike, where: str) -> npt.ArrayLike:
    """Return classes of an estimator as their indices; anything else as it is."""
    classes = getattr(model, "classes_", None)
    if classes is None or np.ndim(y) != 1:
        return y
    labels, known = np.asarray(y), np.asarray(classes)
    index = np.array([np.flatnonzero(known == label)[:1].sum() for label in labels.tolist()])
    strange = known[index] != labels
    if strange.any():
        raise DataError(
            f"{where}: expected classes seen in fit in y, got {labels[strange].tolist()[0]!r}. "
            "Pass rows of the same classes."
        )
    return index


def look(net: Network, rows: Array, target: Target | None, loss: Loss) -> Diagnosis:
    """Measure and judge; arguments are checked already."""
    layers = measure(net, rows, target, loss)
    value = None
    if target is not None:
        value = net.loss(rows, target, loss)
    verdicts = judge(net, rows, input_signal(net, rows), target, layers)
    return Diagnosis(repr(net), len(rows), value, layers, verdicts)


# --- words and numbers ----------------------------------------------------------------------

_KEY = (
    "mean, std: of h; spread: what in h differs between rows; |grad z|: length of a row's gradient"
)


def _table(layers: tuple[LayerSignals, ...]) -> list[str]:
    head = ("layer", "activation", "units", "dead", "saturated", "linear", "mean", "std", "spread",
            "|grad z|", "|grad W|/|W|", "condition")  # fmt: skip
    rows: list[tuple[str, ...]] = [head]
    for layer in layers:
        idle = (layer.dead, layer.saturated, layer.linear)
        numbers = (layer.mean, layer.std, layer.spread, layer.backward, layer.gradient_ratio)
        rows.append((
            str(layer.layer),
            layer.activation,
            str(layer.width),
            *(str(len(units)) for units in idle),
            *("" if number is None else f"{number:.3g}" for number in numbers),
            f"{layer.condition:.2g}",
        ))  # fmt: skip
    used = [i for i in range(len(head)) if any(row[i] for row in rows[1:])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    align = {1: "<"}
    return ["  ".join(f"{row[i]:{align.get(i, '>')}{widths[i]}}" for i in used) for row in rows]


def _layer_dict(layer: LayerSignals) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in vars(layer).items():
        if isinstance(value, np.ndarray):
            found[name] = value.tolist()
        elif isinstance(value, float):
            found[name] = _json(value)
        else:
            found[name] = value
    return {**found, "copies": [list(group) for group in layer.copies]}


def _json(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
