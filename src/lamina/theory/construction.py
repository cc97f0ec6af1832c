"""The search behind ``approximate``: candidates with one hidden layer, each certified."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lamina.core.network import Network
from lamina.theory import piecewise, ridge
from lamina.theory.certify import Certificate, Search
from lamina.theory.enclose import at_points
from lamina.theory.evaluate import in_float64
from lamina.theory.expression import Expression

Float64 = NDArray[np.float64]

_WHERE: Final = "approximate"
_MOST_UNITS: Final = {1: 20_000, 2: 1600, 3: 1600}
_SLACKS: Final = (0.002, 0.02, 0.1, 0.3)  # what samples may miss, as shares of the tolerance
_MOST_HALVINGS: Final = 40  # of the distance of samples
_MOST_SAMPLES: Final = 1_000_000
_PER_AXIS: Final = {1: 801, 2: 61, 3: 19}  # samples to fit to, by dimension


class Construction:
    """One call of ``approximate``: the candidates so far and the time left."""

    def __init__(
        self,
        expression: Expression,
        ends: Float64,
        tolerance: float,
        activation: str,
        dtype: str,
        max_seconds: float | None,
        rng: np.random.Generator | None,
    ) -> None:
        self.f, self.ends, self.tolerance = expression, ends, tolerance
        self.activation, self.dtype, self.rng = activation, dtype, rng
        self.a, self.b = float(ends[0, 0]), float(ends[0, 1])  # of the first dimension
        self.start = time.perf_counter()
        self.stop = math.inf if max_seconds is None else self.start + max_seconds
        # A constant first: bounding it finds out whether f is defined everywhere.
        net = self._constant(0.0)
        self.best = net, self._search(net).run(0.5)
        self._try(self._constant(self._middle()))

    # --- networks ----------------------------------------------------------------------------

    def _network(self, weight: Float64, bias: Float64, out: Float64, offset: float) -> Network:
        n = len(bias)
        net = Network(len(self.ends), (n,), 1, activation=self.activation, dtype=self.dtype, rng=0)
        if self.activation == "sigmoid":  # tanh u = 2 sigmoid(2u) - 1
            weight, bias, offset, out = 2 * weight, 2 * bias, offset - out.sum(), 2 * out
        net.weights[0], net.biases[0] = weight, bias
        net.weights[1], net.biases[1] = out[np.newaxis], [offset]
        return net

    def _constant(self, value: float) -> Network:
        net = Network(len(self.ends), (), 1, dtype=self.dtype, rng=0)
        net.weights[0], net.biases[0] = np.zeros((1, len(self.ends))), [value]
        return net

    def _middle(self) -> float:
        f = in_float64(self.f, ridge.samples(self.ends, _PER_AXIS[len(self.ends)]))
        return float(0.5 * (np.nanmin(f) + np.nanmax(f)))

    # --- certificates ------------------------------------------------------------------------

    def _left(self) -> float:
        return self.stop - time.perf_counter()

    def _search(self, net: Network) -> Search:
        seconds = None if math.isinf(self.stop) else max(self._left(), 1e-3)
        return Search(net, self.f, self.ends, seconds, _WHERE)

    def _try(self, net: Network) -> bool:
        """Certify a network, keep it if it is the best, and say whether it will do."""
        certificate = self._search(net).run(0.1, self.tolerance)
        if certificate.upper < self.best[1].upper:
            self.best = net, certificate
        return certificate.upper <= self.tolerance

    # --- the search --------------------------------------------------------------------------

    def run(self) -> tuple[Network, Certificate]:
        """Return the best network found, and what is proved of it."""
        if self.best[1].upper > self.tolerance:
            if self.activation in ("relu", "step") and len(self.ends) == 1:
                self._pieces()
            elif len(self.ends) == 1:
                self._steep_units()
            else:
                self._ridges()
            net, certificate = self.best
            if certificate.stopped == "above":  # than the tolerance, so the bound was left loose
                closer = self._search(net).run(0.1)
                self.best = net, closer if closer.upper < certificate.upper else certificate
        return self.best

    def _grid(self, tolerance: float) -> tuple[Float64, Float64]:
        """Samples of one dimension, so dense that f hardly moves or bends between neighbours."""
        is_step = self.activation == "step"
        x = np.linspace(self.a, self.b, 4001)
        f = in_float64(self.f, x[:, np.newaxis])
        for _ in range(_MOST_HALVINGS):
            middle = 0.5 * x[:-1] + 0.5 * x[1:]
            value = in_float64(self.f, middle[:, np.newaxis])
            if is_step:
                rough = np.abs(np.diff(f)) > 0.004 * tolerance
            else:
                rough = np.abs(value - 0.5 * f[:-1] - 0.5 * f[1:]) > 0.0008 * tolerance
            rough &= (middle > x[:-1]) & (middle < x[1:])
            if not rough.any() or len(x) + rough.sum() > _MOST_SAMPLES:
                break
            place = np.flatnonzero(rough) + 1
            x, f = np.insert(x, place, middle[rough]), np.insert(f, place, value[rough])
        return x, f

    def _pieces(self) -> None:
        """One dimension, relu or step: the longest pieces; coarse ones first where many are due."""
        x, f = self._grid(self.tolerance)
        due = _theory(x, f, self.tolerance, self.activation)
        power = 2 if self.activation == "relu" else 1
        most = _MOST_UNITS[1]
        for n in (500, 0.9 * most):  # something to return when time or units are over
            if due > n and not self._lay(self.tolerance * (due / n) ** power):
                return
        if due > most:
            return
        for slack in _SLACKS:
            if not self._lay(self.tolerance * (1 - slack)):
                return
            if self.best[1].upper <= self.tolerance:
                return

    def _lay(self, eps: float) -> bool:
        """Certify the pieces of one eps; whether there is time and room for another."""
        x, f = self._grid(eps)
        lay = piecewise.linear_pieces if self.activation == "relu" else piecewise.constant_pieces
        found = lay(x, f, eps, _MOST_UNITS[1])
        if found is None or self._left() < 0:
            return False
        at, values = found
        if self.activation == "relu":
            slopes = np.diff(values) / np.diff(at)
            jumps = np.diff(slopes, prepend=0.0)
            self._try(self._network(np.ones((len(slopes), 1)), -at[:-1], jumps, values[0]))
        else:
            self._try(self._network(np.ones((len(at), 1)), -at, np.diff(values), values[0]))
        return self._left() > 0

    def _steep_units(self) -> None:
        """One dimension, smooth units: double their number until it does, then halve the gap."""
        x = ridge.samples(self.ends, 801)
        f = in_float64(self.f, x)
        even = np.linspace(self.a, self.b, 401)
        value = in_float64(self.f, even[:, np.newaxis])
        bend = np.sqrt(np.abs(np.diff(value, 2, prepend=value[0], append=value[-1])))
        bend = 0.5 * (bend[1:] + bend[:-1])
        density = bend + max(float(bend.mean()), 1e-300)

        wide = self.ends + 0.4 * (self.b - self.a) * np.array([[-1.0, 1.0]])
        # By bends for corners; beyond the box, and flatter, for what is smooth up to its ends.
        layouts = (
            (self.ends, 0.5, density),
            (wide, 0.5, None),
            (wide, 0.25, None),
            (self.ends, 0.25, density),
            (self.ends, 1.0, density),
        )

        def attempt(n: int) -> tuple[bool, float]:
            fits = (
                ridge.fit(ridge.layer_1d(e, n, s, d), "tanh", x, f, 0.9 * self.tolerance)
                for e, s, d in layouts
            )
            return self._first_good(fits)

        turns = int((np.diff(np.sign(np.diff(f))) != 0).sum())
        self._grow(attempt, 1, 512, 32 + 4 * turns)

    def _ridges(self) -> None:
        """Two and three dimensions: more units until it does."""
        per_axis = _PER_AXIS[len(self.ends)]
        x = ridge.samples(self.ends, per_axis)
        f = in_float64(self.f, x)
        kind = "relu" if self.activation == "relu" else "tanh"

        def attempt(n: int) -> tuple[bool, float]:
            fits = (
                ridge.fit(
                    ridge.layer_nd(self.ends, n, kind, s, self.rng),
                    kind,
                    x,
                    f,
                    0.8 * self.tolerance,
                )
                for s in ((1.0,) if kind == "relu" else (1.0, 0.5))
            )
            return self._first_good(fits)

        self._grow(attempt, 8, _MOST_UNITS[len(self.ends)], 256)

    def _first_good(self, fits: Iterator[ridge.Fit]) -> tuple[bool, float]:
        """Certify the fits that look good enough at the samples, until one is.

        Returns whether one is, and the least error at the samples.
        """
        best: ridge.Fit | None = None
        for fit in fits:
            if best is None or fit.error < best.error:
                best = fit
            if fit.error <= self.tolerance and self._try(self._of(fit)):
                return True, fit.error
            if self._left() < 0:
                break
        if best is not None and best.error < 0.9 * self.best[1].lower:
            self._try(self._of(best))  # it may be all that there is time for
        return False, math.inf if best is None else best.error

    def _of(self, fit: ridge.Fit) -> Network:
        return self._network(fit.layer.weight, fit.layer.bias, fit.out, fit.offset)

    def _grow(
        self, attempt: Callable[[int], tuple[bool, float]], n: int, most: int, few: int
    ) -> None:
        """Double n until an attempt succeeds, then look for a smaller one between.

        Beyond ``few`` units, give up where three doublings brought nothing.
        """
        failed = idle = 0
        before = math.inf
        while True:
            reached, error = attempt(n)
            if reached:
                break
            # Where f jumps, or rounding is all that is left, more units do nothing.
            idle = idle + 1 if n > few and error > 0.85 * before else 0
            if n >= most or self._left() < 0 or idle == 3:
                return
            failed, n, before = n, min(2 * n, most), error
        good = n
        kept = self.best
        while good - failed > max(1, good // 8) and self._left() > 0:
            middle = (good + failed) // 2
            self.best = kept
            if attempt(middle)[0]:
                good = middle
                kept = self.best
            else:
                failed = middle
        self.best = kept

    # --- the numbers of units that theory knows -----------------------------------------------

    def counts(self) -> tuple[float | None, int | None]:
        """The units that theory asks for, and those without which none will do; None: not known."""
        if len(self.ends) > 1:
            return None, None
        x, f = self._grid(self.tolerance)
        theory = _theory(x, f, self.tolerance, self.activation)
        known = theory if math.isfinite(theory) else None
        if self.activation == "relu":
            found = piecewise.bends(x, f, self.tolerance, _MOST_UNITS[1])
        elif self.activation == "step":
            found = piecewise.steps(f, self.tolerance)
        else:
            return known, None
        index, place = np.unique(found, return_inverse=True)
        exact, _ = at_points(self.f, x[index][:, np.newaxis])
        place = place.reshape(found.shape)
        if self.activation == "step":
            return known, piecewise.n_proved_steps(exact, place, self.tolerance)
        return known, piecewise.n_proved_bends(x[index], exact, place, self.tolerance)


def _theory(x: Float64, f: Float64, eps: float, activation: str) -> float:
    """The asymptotic number of units in one dimension, from samples."""
    if activation == "relu":
        with np.errstate(all="ignore"):
            width = 0.5 * (x[2:] - x[:-2])
            bend = np.abs(np.diff(np.diff(f) / np.diff(x))) / width  # |f''|
            return float((np.sqrt(bend) * width).sum() / (4 * math.sqrt(eps)))
    return float(np.abs(np.diff(f)).sum() / (2 * eps))
