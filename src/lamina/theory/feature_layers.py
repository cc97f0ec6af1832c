"""Hidden layers as feature maps: what each makes of the rows, and how separable they become."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, overload

import numpy as np
import numpy.typing as npt

from lamina.bridges.sklearn import as_network
from lamina.core.checks import as_matrix, check_count, resolve_rng
from lamina.core.errors import ShapeError
from lamina.core.functions import Float64
from lamina.core.network import Network
from lamina.theory.labels import as_labels
from lamina.theory.layer_signals import input_signal
from lamina.theory.linear_readout import (
    Probe,
    Rank,
    Separation,
    probe_classes,
    probe_numbers,
    rank_of,
    separate,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WHERE: Final = "learned_features"
_MOST_CLASSES: Final = 20  # different whole numbers; more are numbers


@dataclass(frozen=True, eq=False, repr=False)
class LayerFeatures:
    """One layer as a feature map: call it with rows.

    Attributes
    ----------
    net : Network
    layer : int
        0 is what the first layer reads: x, or what an encoding makes of it.
    name : str
        The activation, or "input".
    width : int
    rank : Rank
        Of the features of these rows.
    scale : float
        Root mean square distance of the rows' features from their mean.
    separation : Separation or None
        None without classes.
    probe : Probe or None
        None without y.
    """

    net: Network
    layer: int
    name: str
    width: int
    rank: Rank
    scale: float
    separation: Separation | None
    probe: Probe | None

    def __call__(self, x: npt.ArrayLike) -> Float64:
        """Return h_l of rows x (n, d_in), shape (n, width): feed it to ``theory.separability``."""
        rows = as_matrix(x, "x", f"features of layer {self.layer}", self.net.spec.d_in)
        return _features(self.net, rows, self.layer)

    @property
    def margin_ratio(self) -> float | None:
        """The margin over `scale`, which compares layers; None where there is none."""
        if self.separation is None or self.separation.margin is None or not self.scale:
            return None
        return self.separation.margin / self.scale

    def to_dict(self) -> dict[str, Any]:
        """Return its numbers as JSON types."""
        return {
            "layer": self.layer,
            "name": self.name,
            "width": self.width,
            "rank": vars(self.rank),
            "scale": self.scale,
            "separation": None if self.separation is None else vars(self.separation),
            "margin_ratio": self.margin_ratio,
            "probe": None if self.probe is None else vars(self.probe),
        }

    def __repr__(self) -> str:
        return f"LayerFeatures(layer {self.layer}, {self.name}, {self.width} features)"


class LearnedFeatures(Sequence[LayerFeatures]):
    """All layers of a network as feature maps; print it for a table.

    ``features[l]`` is layer l, from 0, the input, to L - 1, what the output layer reads.
    """

    def __init__(self, layers: Sequence[LayerFeatures], n_rows: int, n_classes: int | None) -> None:
        self._layers = tuple(layers)
        self.n_rows = n_rows
        self.n_classes = n_classes

    @overload
    def __getitem__(self, index: int) -> LayerFeatures: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[LayerFeatures]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int) and not -len(self) <= index < len(self):
            raise IndexError(
                f"{_WHERE}: expected a layer from 0, the input, to {len(self) - 1}, got {index}."
            )
        return self._layers[index]

    def __len__(self) -> int:
        return len(self._layers)

    def __iter__(self) -> Iterator[LayerFeatures]:
        return iter(self._layers)

    @property
    def separable_from(self) -> int | None:
        """The first layer whose features a linear unit can tell apart; None if there is none."""
        return next((f.layer for f in self if f.separation and f.separation.separable), None)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON types."""
        return {
            "n_rows": self.n_rows,
            "n_classes": self.n_classes,
            "separable_from": self.separable_from,
            "layers": [layer.to_dict() for layer in self],
        }

    def plot(self) -> Figure:
        """Return a figure of ranks, margins and probes by layer (needs matplotlib)."""
        from lamina.plots.features import plot_features

        return plot_features(
            [f"{f.layer}\n{f.name}" for f in self],
            np.array([f.width for f in self], np.float64),
            np.array([f.rank.effective for f in self]),
            np.array([math.nan if f.margin_ratio is None else f.margin_ratio for f in self]),
            np.array([math.nan if f.probe is None else f.probe.score for f in self]),
            score_name="R²" if self.n_classes is None else "accuracy",
        )

    def __str__(self) -> str:
        head = [
            "layer",
            "features",
            "width",
            "rank",
            "effective",
            "separable",
            "margin",
            "of scale",
        ]
        scored = [f.probe for f in self if f.probe is not None]
        measure = "R2" if self.n_classes is None else "accuracy"
        head.append(f"probe {measure}" + (", held out" if scored and scored[0].held_out else ""))
        rows = [head, *(_row(f) for f in self)]
        used = [i for i in range(len(head)) if any(row[i] for row in rows[1:])]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = [
            "  ".join(f"{row[i]:{'<' if i in (1, 5) else '>'}{widths[i]}}" for i in used).rstrip()
            for row in rows
        ]
        classes = "" if self.n_classes is None else f" of {self.n_classes} classes"
        return "\n".join([f"features of {self.n_rows:,} rows{classes}", "", *lines])

    __repr__ = __str__


def learned_features(
    net: Any,
    x: npt.ArrayLike,
    y: npt.ArrayLike | None = None,
    *,
    n_rows: int = 1000,
    rng: int | np.random.Generator | None = 0,
) -> LearnedFeatures:
    """Return a network's layers as feature maps, with how separable each makes the classes.

    Parameters
    ----------
    net : Network, or a fitted MLPClassifier or MLPRegressor
    x : array-like (n, d_in), n ≥ 2, finite
    y : array-like (n,), optional
        Classes: text, booleans, or up to 20 different whole numbers. Other numbers, (n,) or
        (n, k), get a linear regression in place of separation. None: ranks alone.
    n_rows : int ≥ 2, default 1000
        Of more rows, so many are drawn.
    rng : int or numpy.random.Generator, default 0
        Draws them, and a third of them to score probes on.

    Returns
    -------
    LearnedFeatures
        A sequence from layer 0, the input, to the last hidden layer; each is callable: ``f =
        learned_features(net, x, y)[1]`` gives ``f(x)``, and ``theory.separability(f(x), y)`` the
        proof.

    Raises
    ------
    SpecError, ShapeError, DataError
        `net` is something else, or rows or labels do not fit.

    Notes
    -----
    Separation is each class against the rest, and proved exactly where rows times features are at
    most 4,096; else by floats (Wolfe's nearest point of the hulls). A margin over `scale` compares
    layers, as features can be made larger at will. Separable is not the same as learnt: n rows in n
    dimensions nearly always are, whatever their labels (Cover 1965), so mind `n_rows` and the
    probe's score on rows it did not see.

    References
    ----------
    Cover (1965), "Geometrical and statistical properties of systems of linear inequalities"; Alain
    and Bengio (2016), arXiv:1610.01644.

    Examples
    --------
    >>> import lamina
    >>> from lamina import theory
    >>> net = lamina.Network(2, (2,), 1, rng=0)  # the textbook's exclusive or
    >>> net.weights[0], net.biases[0] = [[1, 1], [1, 1]], [0, -1]
    >>> net.weights[1] = [[1, -2]]
    >>> corners = [[0, 0], [0, 1], [1, 0], [1, 1]]
    >>> features = theory.learned_features(net, corners, [0, 1, 1, 0])
    >>> [layer.separation.separable for layer in features], features.separable_from
    ([False, True], 1)
    """
    network = as_network(net, _WHERE)
    rows = as_matrix(x, "x", _WHERE, network.spec.d_in, network.spec.dtype, min_rows=2)
    target = None if y is None else _as_y(y, len(rows))
    most = check_count(n_rows, "n_rows", _WHERE, 2)
    seed = int(resolve_rng(rng).integers(2**32))
    if len(rows) > most:
        kept = np.sort(np.random.default_rng(seed).permutation(len(rows))[:most])
        rows, target = rows[kept], None if target is None else target[kept]
    n_classes, codes = None, None
    if target is not None and _are_classes(target):
        classes, codes = as_labels(target, len(rows), _WHERE)
        n_classes = len(classes)
    layers = []
    for layer in range(network.spec.n_layers):
        h = _features(network, rows, layer)
        separation, probe = None, None
        if codes is not None and n_classes is not None:
            separation = separate(h, codes, n_classes)
            probe = probe_classes(h, codes, n_classes, seed)
        elif target is not None:
            numbers = as_matrix(target.reshape(len(rows), -1), "y", _WHERE).astype(np.float64)
            probe = probe_numbers(h, numbers, seed)
        eps = float(np.finfo(network.dtype).eps)
        layers.append(
            LayerFeatures(
                net=network,
                layer=layer,
                name="input" if layer == 0 else network.spec.activation_at(layer),
                width=h.shape[1],
                rank=rank_of(h, eps),
                scale=float(np.sqrt(h.var(axis=0).sum())),
                separation=separation,
                probe=probe,
            )
        )
    return LearnedFeatures(layers, len(rows), n_classes)


def _features(net: Network, rows: npt.NDArray[Any], layer: int) -> Float64:
    """Return h_l in float64."""
    if layer == 0:
        return input_signal(net, rows)
    return net.trace(rows).h[layer - 1].astype(np.float64)


def _as_y(y: npt.ArrayLike, n: int) -> npt.NDArray[Any]:
    target = np.asarray(y)
    if target.ndim == 2 and target.shape[1] == 1:
        target = target[:, 0]  # (n,)
    if target.ndim not in (1, 2) or len(target) != n:
        raise ShapeError(
            f"{_WHERE}: expected y with one label or row of numbers for each of {n} rows of x, got "
            f"shape {target.shape}. Pass as many."
        )
    return target


def _are_classes(y: npt.NDArray[Any]) -> bool:
    if y.ndim != 1 or y.dtype.kind in "OUSb":
        return y.ndim == 1
    whole = bool(np.all(y == np.floor(y)))
    return whole and len(np.unique(y)) <= _MOST_CLASSES


def _row(f: LayerFeatures) -> list[str]:
    row = [str(f.layer), f.name, str(f.width), str(f.rank.numerical), f"{f.rank.effective:.1f}"]
    s = f.separation
    if s is None:
        row += ["", "", ""]
    else:
        how = "proved" if s.exact else "by floats"
        row.append(f"{'yes' if s.separable else 'no'}, {how}")
        row.append("" if s.margin is None else f"{s.margin:.3g}")
        row.append("" if f.margin_ratio is None else f"{f.margin_ratio:.3g}")
    return [*row, "" if f.probe is None else f"{f.probe.score:.3f}"]
