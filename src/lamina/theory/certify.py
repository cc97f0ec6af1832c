"""How far a network can be from a function over a box: a bound that is proved, not sampled.

Branch and bound: the difference is enclosed over each of many small boxes (``taylor``), the boxes
with the greatest bounds are halved, and the greatest difference met at a point is the other bound.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lamina.core.checks import check_number
from lamina.core.errors import DataError, SpecError
from lamina.core.network import Network
from lamina.theory import interval as iv
from lamina.theory.enclose import at_points, taylor_model
from lamina.theory.expression import Expression, parse_expression
from lamina.theory.line_bounds import LineBounds, is_on_a_line
from lamina.theory.network_bounds import check_network, network_model
from lamina.theory.taylor import Boxes

Float64 = NDArray[np.float64]

_WHERE: Final = "certify_error"
_BATCH: Final = 2**19  # numbers an array: about what the cache holds
_LINE_BATCH: Final = 8192
_MOST_BOXES: Final = 400_000
_DEPTH: Final = 45  # halvings of each side, after which what is still unbounded is not defined


@dataclass(frozen=True)
class Certificate:
    """Two bounds of max |net(x) - f(x)| over a box.

    For every x of the network's dtype in the box, ``net(x)`` as lamina computes it is at most
    ``upper`` from f(x) as written; at ``at`` it is at least ``lower`` from it.

    Attributes
    ----------
    lower, upper : float
    at : array (d,)
    n_boxes : int
        How many boxes were bounded.
    seconds : float
    stopped : str
        Why it went no further: "close" (within rtol), "below" (upper ≤ target), "above" (lower >
        target), "time", "boxes", or "rounding" where halving changes nothing more.
    """

    lower: float
    upper: float
    at: Float64
    n_boxes: int
    seconds: float
    stopped: str


def as_box(box: object, where: str, most: int | None = None) -> Float64:
    """Return a box as an array (d, 2) of lower and upper ends.

    Parameters
    ----------
    box : pair of numbers, or sequence of pairs
        ``(0, 1)`` in one dimension, ``[(-1, 1), (-1, 1)]`` in two.
    where : str
        The function, for the error sentence.
    most : int, optional
        The highest dimension to accept.

    Raises
    ------
    SpecError
        It has another form, an end that is not finite, or no volume.
    """
    try:
        ends = np.asarray(box, np.float64)
    except (TypeError, ValueError):
        ends = np.empty(0)
    if ends.shape == (2,):
        ends = ends[np.newaxis]
    if ends.ndim != 2 or ends.shape[1] != 2 or not len(ends):
        raise SpecError(
            f"{where}: expected box as (low, high), or one such pair a dimension, got {box!r}. "
            f"Pass for example (0, 1), or [(-1, 1), (-1, 1)]."
        )
    if most is not None and len(ends) > most:
        raise SpecError(
            f"{where}: expected a box of at most {most} dimensions, got {len(ends)}. "
            f"Fix some variables: the number of units grows exponentially with the dimension."
        )
    if (
        not np.isfinite(ends).all()
        or np.abs(ends).max() > 1e100
        or (ends[:, 0] >= ends[:, 1]).any()
    ):
        bad = next((a, b) for a, b in ends.tolist() if not (-1e100 <= a < b <= 1e100))
        raise SpecError(
            f"{where}: expected low < high in every dimension, both finite and within 1e100, got "
            f"{bad}. Give the box a volume."
        )
    return ends


def certify_error(
    net: Network,
    f: str | Expression,
    box: object,
    *,
    rtol: float = 0.1,
    target: float | None = None,
    max_seconds: float | None = None,
) -> Certificate:
    """Bound the greatest error |net(x) - f(x)| over a box, with proof.

    Parameters
    ----------
    net : Network
        Any, with one output (identity, sigmoid, exp or step) and without encoding.
    f : str or Expression
        The function, as ``theory.parse_expression`` reads it.
    box : pair or sequence of pairs
        ``(low, high)`` in one dimension, one pair a dimension else.
    rtol : float ≥ 0, default 0.1
        Go on until upper ≤ (1 + rtol) lower; smaller takes longer.
    target : float > 0, optional
        Stop as soon as it is decided whether the error is at most this, too.
    max_seconds : float > 0, optional
        Stop after so long, with bounds that hold but may lie apart.

    Returns
    -------
    Certificate

    Raises
    ------
    SpecError
        The network, the expression, the box or an option is not as described.
    DataError
        f is undefined or unbounded somewhere in the box.

    Notes
    -----
    The bounds of a box close with the third power of its width where all is smooth, so that
    hundreds or thousands of boxes do in one to three dimensions; each costs a few forward passes.
    The number of boxes grows exponentially with the dimension.

    Examples
    --------
    >>> import lamina
    >>> from lamina import theory
    >>> net = lamina.Network(1, (2,), 1, dtype="float64", rng=0)
    >>> net.weights[0], net.biases[0] = [[1.0], [-1.0]], [0.0, 0.0]
    >>> net.weights[1], net.biases[1] = [[1.0, 1.0]], [0.0]
    >>> theory.certify_error(net, "abs(x)", (-1, 1)).upper < 1e-13  # |x| = relu(x) + relu(-x)
    True
    """
    check_network(net, _WHERE)
    f = parse_expression(f)
    ends = as_box(box, _WHERE)
    if len(ends) != net.spec.d_in or f.d_in > len(ends):
        raise SpecError(
            f"{_WHERE}: expected a box and a function of the network's {net.spec.d_in} "
            f"variable{'s' if net.spec.d_in != 1 else ''}, got a box of {len(ends)} and a function "
            f"of {f.d_in}. Pass one pair (low, high) for each column of x."
        )
    rtol = check_number(rtol, "rtol", _WHERE, 0.0)
    if target is not None:
        target = check_number(target, "target", _WHERE, 0.0, closed="right")
    if max_seconds is not None:
        max_seconds = check_number(max_seconds, "max_seconds", _WHERE, 0.0, closed="right")
    return Search(net, f, ends, max_seconds).run(rtol, target)


class Search:
    """The boxes that are still open, and the bounds so far."""

    def __init__(
        self,
        net: Network,
        f: Expression,
        ends: Float64,
        max_seconds: float | None = None,
        where: str = _WHERE,
    ) -> None:
        self.net, self.f, self.ends, self.where = net, f, ends, where
        self.start = time.perf_counter()
        self.stop = math.inf if max_seconds is None else self.start + max_seconds
        self.low = np.empty((0, len(ends)))
        self.high = np.empty((0, len(ends)))
        self.bound = np.empty(0)
        self.settled = 0.0  # the greatest bound among boxes that are closed
        self.lower, self.at = 0.0, ends.mean(axis=1)
        self.n_boxes = 0
        self._sides = ends[:, 1] - ends[:, 0]
        self._line = LineBounds(net, float(np.abs(ends).max())) if is_on_a_line(net) else None

    def run(self, rtol: float, target: float | None = None) -> Certificate:
        """Halve boxes until the bounds are close, the target decided, or time is up."""
        self._open(*_first_boxes(self.net, self.ends))
        reason = ""
        while not reason:
            upper = self.upper
            enough = self.lower * (1 + rtol)
            if target is not None and self.lower <= target:
                enough = min(enough, target)  # between the two, it is not decided yet
            if upper <= enough:
                reason = "close"
            elif target is not None and upper <= target and upper <= 3 * self.lower:
                reason = "below"
            elif target is not None and self.lower > target and math.isfinite(upper):
                reason = "above"
            elif time.perf_counter() > self.stop:
                reason = "time"
            elif self.n_boxes > _MOST_BOXES:
                reason = "boxes"
            elif self._is_rounding(rtol):
                reason = "rounding"
            else:
                self._halve(enough)
        seconds = time.perf_counter() - self.start
        return Certificate(self.lower, self.upper, self.at, self.n_boxes, seconds, reason)

    def _is_rounding(self, rtol: float) -> bool:
        """Whether the worst box is bounded as well as its centre alone would be, or nearly.

        An unbounded box is followed down to where it becomes bounded, or f undefined.
        """
        worst = int(self.bound.argmax())
        low, high = self.low[worst], self.high[worst]
        if math.isinf(self.bound[worst]):
            self._dive(low, high)
            return False
        centre = (0.5 * low + 0.5 * high)[np.newaxis]
        alone = float(self._bounds(Boxes.between(centre, centre))[0])
        rounding = alone - self._sample(centre)
        worst_bound = float(self.bound[worst])
        return worst_bound <= (1 + 0.2 * rtol) * alone or worst_bound - self.lower <= 4 * rounding

    @property
    def upper(self) -> float:
        """The proved bound over all boxes."""
        return float(max(self.settled, self.bound.max(initial=0.0)))

    def _halve(self, enough: float) -> None:
        """Close the boxes that are good enough; halve the worst of the others."""
        done = self.bound <= enough
        self.settled = max(self.settled, float(self.bound[done].max(initial=0.0)))
        self.low, self.high, self.bound = self.low[~done], self.high[~done], self.bound[~done]
        most = max(64, self._batch())
        order = np.argsort(-self.bound, kind="stable")
        worst, rest = order[:most], order[most:]
        low, high = self.low[worst], self.high[worst]
        self.low, self.high, self.bound = self.low[rest], self.high[rest], self.bound[rest]
        size = (high - low) / self._sides
        axis = size.argmax(axis=1)
        rows = np.arange(len(low))
        middle = 0.5 * low[rows, axis] + 0.5 * high[rows, axis]
        left, right = high.copy(), low.copy()
        left[rows, axis] = right[rows, axis] = middle
        self._open(np.concatenate([low, right]), np.concatenate([left, high]))

    def _batch(self) -> int:
        if self._line is not None:
            return _LINE_BATCH
        spec = self.net.spec
        width = max([spec.d_in, *spec.widths])
        return max(_BATCH // (width * (3 + len(self.ends)) * 2), 16)

    def _dive(self, low: Float64, high: Float64) -> None:
        """Follow an unbounded box down: if a part as small as a point still is, f is at fault."""
        for _ in range(_DEPTH * len(low)):
            left, right = _halves(low, high, int(((high - low) / self._sides).argmax()))
            both = np.stack([left[0], right[0]]), np.stack([left[1], right[1]])
            self._sample(0.5 * both[0] + 0.5 * both[1])
            bound = self._bounds(Boxes.between(*both))
            if not np.isinf(bound).any():
                return
            low, high = (left, right)[int(np.isinf(bound).argmax())]
        self._refuse(np.where((low <= 0) & (high >= 0), 0.0, 0.5 * low + 0.5 * high))

    def _refuse(self, point: Float64) -> None:
        at = ", ".join(f"{v:.6g}" for v in point)
        raise DataError(
            f"{self.where}: expected {self.f.text!r} to be defined and below 1e308 all over the "
            f"box, got a point at or near ({at}) where it is not. Make the box smaller, or change "
            f"the formula."
        )

    def _open(self, low: Float64, high: Float64) -> None:
        """Bound new boxes, in batches, and look at their centres."""
        step = self._batch()
        bounds = []
        for first in range(0, len(low), step):
            boxes = Boxes.between(low[first : first + step], high[first : first + step])
            bounds.append(self._bounds(boxes))
            self._sample(boxes.centre)
            if time.perf_counter() > self.stop and first + step < len(low):
                bounds.append(np.full(len(low) - first - step, np.inf))
                break
        self.n_boxes += len(low)
        self.low = np.concatenate([self.low, low])
        self.high = np.concatenate([self.high, high])
        self.bound = np.concatenate([self.bound, *bounds])

    def _bounds(self, boxes: Boxes) -> Float64:
        wanted, defined = taylor_model(self.f, boxes)
        with np.errstate(all="ignore"):
            line = self._line
            found = network_model(self.net, boxes) if line is None else line.model(boxes)
            difference = (found - wanted).range
        bound = difference.magnitude()[1][:, 0]
        return np.where(defined & ~np.isnan(bound), bound, np.inf)

    def _sample(self, points: Float64) -> float:
        """Return the greatest error at points that is certain; the lower bound is no less."""
        x = points.astype(self.net.dtype)
        inside = ((x >= self.ends[:, 0]) & (x <= self.ends[:, 1])).all(axis=1)
        x = x[inside]
        if not len(x):
            return 0.0
        exact, undefined = at_points(self.f, x.astype(np.float64))
        if undefined.any():
            self._refuse(x[undefined][0])
        value = self.net(x)[:, 0].astype(np.float64)
        error = np.maximum(iv.add_down(value, -exact.hi), iv.add_down(exact.lo, -value))
        best = int(np.argmax(error))
        if error[best] > self.lower:
            self.lower, self.at = float(error[best]), x[best].astype(np.float64)
        return float(error[best])


def _halves(
    low: Float64, high: Float64, axis: int
) -> tuple[tuple[Float64, Float64], tuple[Float64, Float64]]:
    """One box cut in two."""
    middle = 0.5 * low[axis] + 0.5 * high[axis]
    left, right = high.copy(), low.copy()
    left[axis] = right[axis] = middle
    return (low, left), (right, high)


def _first_boxes(net: Network, ends: Float64) -> tuple[Float64, Float64]:
    """A grid to begin with; in one dimension cut where units of the first layer bend or jump."""
    spec = net.spec
    if spec.d_in == 1:
        weight, bias = net.weights[0].astype(np.float64)[:, 0], net.biases[0].astype(np.float64)
        with np.errstate(all="ignore"):
            knots = -bias / weight
        inner = knots[(knots > ends[0, 0]) & (knots < ends[0, 1])] if spec.widths else np.empty(0)
        even = np.linspace(ends[0, 0], ends[0, 1], 9)
        cuts = np.unique(np.concatenate([even, inner]))
        return cuts[:-1, np.newaxis], cuts[1:, np.newaxis]
    per_axis = max(round(256 ** (1 / len(ends))), 1) if len(ends) <= 8 else 1
    axes: list[Any] = [np.linspace(a, b, per_axis + 1) for a, b in ends]
    low = np.stack(np.meshgrid(*[a[:-1] for a in axes], indexing="ij"), axis=-1)
    high = np.stack(np.meshgrid(*[a[1:] for a in axes], indexing="ij"), axis=-1)
    return low.reshape(-1, len(ends)), high.reshape(-1, len(ends))
