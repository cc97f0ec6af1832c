"""Compression of a field: its weights in steps, tuned to the signal while they are rounded.

Each tensor's step is a common factor divided by the root of the mean squared derivative of the
field by the tensor's weights: at a given rate, that makes the mean squared error of the field
least (where steps are small: all tensors then add as much error a weight). The derivatives are
measured at random places with random signs (Hutchinson's estimator) and need no signal. The common
factor is what the rate asks for. With a signal, training goes on: the gradients of rounded weights
are applied to weights that are not rounded (straight-through: Bengio et al. 2013,
arXiv:1308.3432).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from lamina.core.checks import check_count, check_number
from lamina.core.engine import Run, default_n_threads, make_engine
from lamina.core.errors import SpecError
from lamina.core.losses import SquaredError
from lamina.core.network import Network
from lamina.core.optim import Adam, native_hyper
from lamina.fields.entropy import estimate
from lamina.fields.field import Field
from lamina.fields.fit import FitProgress, psnr_of
from lamina.fields.quantised import Quantised, as_step, tensors
from lamina.fields.signal import Signal

Array = npt.NDArray[Any]
AnyField = TypeVar("AnyField", bound=Field)

DEFAULT_BITS: Final = 4.0
LEAST_BITS, MOST_BITS = 0.05, 12.0
DEFAULT_SECONDS: Final = 5.0
DEAD_ZONE: Final = 0.1
TABLE_LR, LAYERS_LR = 3e-3, 3e-4  # the highest learning rate with a hash grid, and without
BATCH_SIZE: Final = 1 << 13
N_PHASES: Final = 6  # steps are chosen anew so often, as weights move
SENSITIVITY_ROWS, SENSITIVITY_PASSES = 1 << 14, 6
# Of the greatest mean squared derivative: below, a tensor's step grows no more
LEAST_SENSITIVITY: Final = 1e-8
WIDEST: Final = 40.0  # |log2| of the common factor
SECONDS_BETWEEN_REPORTS: Final = 0.2


def compress(
    field: AnyField,
    bits_per_weight: float | None = None,
    *,
    n_bytes: int | None = None,
    signal: Any = None,
    max_seconds: float | None = None,
    max_steps: int | None = None,
    progress: Callable[[FitProgress], object] | None = None,
    **options: Any,
) -> AnyField:
    """Return a field whose weights take so many bits each, on average, in its file.

    Parameters
    ----------
    field : Field
        Fitted, of any kind; it is left as it is.
    bits_per_weight : float in [0.05, 12], optional
        Entropy coded, at most; the result is within a few per cent of it. 4 if neither this nor
        n_bytes is given.
    n_bytes : int ≥ 1, optional
        The same as the size of the whole file that ``save`` will write.
    signal : optional
        What the field was fitted to, as its `fit` takes it. Rounded weights are then tuned to it,
        which gains 0.1 dB at 5 bits and 1 to 2 dB at 3 and less.
    max_seconds : float > 0, optional
        Of tuning; 5 where neither this nor max_steps is given.
    max_steps : int ≥ 1, optional
        Of tuning: unlike seconds, the same on every machine.
    progress : callable, optional
        Called with a `FitProgress` some five times a second; returning True ends tuning.
    **options
        What `fit` takes beside the signal to read it: rate, mask, signs.

    Returns
    -------
    field
        Of the same class; ``save`` writes the small file. Its report's PSNR is measured anew
        where there is a signal, and is the fit's elsewhere. A field that is small enough already is
        returned as it is, unless there is a signal.

    Raises
    ------
    SpecError
        An argument is not as described, or so few bits cannot hold this network.
    ShapeError, DataError
        Of the signal, as for `fit`.

    Notes
    -----
    After Ctrl-C the tuning so far is kept. Weights are whole numbers times steps, rounded once: the
    same bits on every machine.

    Examples
    --------
    >>> import numpy as np
    >>> from lamina.fields import ImageField, compress
    >>> pixels = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    >>> field = ImageField(rng=0).fit(pixels, max_steps=300, n_params=4000)
    >>> small = compress(field, 4, signal=pixels, max_steps=50)
    >>> 3.8 < small.bits_per_weight <= 4
    True
    """
    where = "compress"
    _check_field(field, where)
    seconds = (
        math.inf
        if max_seconds is None
        else check_number(max_seconds, "max_seconds", where, 0.0, closed="right")
    )
    steps = math.inf if max_steps is None else check_count(max_steps, "max_steps", where)
    if max_seconds is None and max_steps is None:
        seconds = DEFAULT_SECONDS
    if n_bytes is None:
        bits = DEFAULT_BITS if bits_per_weight is None else bits_per_weight
        bits = check_number(bits, "bits_per_weight", where, LEAST_BITS, MOST_BITS)
        most = int(bits * field.n_params / 8)
    elif bits_per_weight is not None:
        raise SpecError(f"{where}: expected bits_per_weight or n_bytes, got both. Pass one.")
    else:
        n_bytes = check_count(n_bytes, "n_bytes", where)
        most = n_bytes - _n_other_bytes(field)
    if (
        signal is None
        and field.coding is not None
        and (field.n_coded_bytes <= most if n_bytes is None else field.n_file_bytes <= n_bytes)
    ):
        return copy.copy(field)
    quantiser = _Quantiser(field.network, most)
    weights = quantiser.exact(field.network.theta)
    score: Callable[[Quantised], float | None] = _unknown
    if signal is not None:
        tuning = _Tuning(field, field._signal(signal, where, **options), quantiser, progress)
        tuned = quantiser.exact(theta := tuning.go(seconds, steps))
        score = tuning.score
        if tuning.score(tuned) <= tuning.score(weights):
            theta, tuned = field.network.theta, weights
        weights = tuned
    else:
        theta = field.network.theta
    result = _of(field, weights, score(weights), quantiser)
    while n_bytes is not None and (excess := result.n_file_bytes - n_bytes) > 0:
        quantiser.n_bytes -= excess
        weights = quantiser.exact(theta)
        result = _of(field, weights, score(weights), quantiser)
    return result


def _check_field(field: object, where: str) -> None:
    if not isinstance(field, Field):
        raise SpecError(f"{where}: expected a field, got {type(field).__name__}. Pass a field.")
    if field.ROLE == "radiance_field":
        raise SpecError(
            f"{where}: expected a field of one network, got a scene, which has two. "
            "Fit it with fewer parameters (n_params) instead."
        )
    if getattr(field, "max_error", None) is not None:
        raise SpecError(
            f"{where}: expected a field without an error bound, got one whose bound needs its "
            "weights as they are. Fit it without max_error."
        )


def _unknown(weights: Quantised) -> float | None:
    """There is no signal to measure a PSNR on."""
    del weights
    return None


def _n_other_bytes(field: Field) -> int:
    """Return about how many bytes of a file are not weights."""
    n_tensors = len(tensors(field.network.spec))
    return field.n_file_bytes - field.n_coded_bytes + (field.coding is None) * (40 + 28 * n_tensors)


def _of(field: AnyField, weights: Quantised, psnr: float | None, quantiser: _Quantiser) -> AnyField:
    """Return a copy of a field with other weights."""
    result = copy.copy(field)
    theta = weights.theta(quantiser.parts)
    result._network = Network.from_spec(field.network.spec, theta)
    result._coding = weights
    result._report = field.report if psnr is None else replace(field.report, psnr=psnr)
    return result


class _Quantiser:
    """Chooses steps for a network's weights that make them take a number of bytes.

    Parameters
    ----------
    net : Network
    n_bytes : int
    """

    def __init__(self, net: Network, n_bytes: int) -> None:
        self.parts, self.n_bytes = tensors(net.spec), n_bytes
        squares = _squared_derivatives(net)
        means = np.array([float(squares[part].mean()) for part in self.parts])
        floor = LEAST_SENSITIVITY * float(means.max()) or 1.0
        self.relative = 1.0 / np.sqrt(np.maximum(means, floor))
        self.relative /= self.relative.max()
        self._last: float | None = None

    def at(self, theta: Array, log2_factor: float) -> Quantised:
        """Return the weights in steps of this factor."""
        steps = tuple(as_step(float(each) * 2.0**log2_factor) for each in self.relative)
        return Quantised.of(theta, self.parts, steps, DEAD_ZONE)

    def near(self, theta: Array) -> Quantised:
        """Return the weights in steps that should take `n_bytes`, by their entropy."""
        return self.at(theta, self._about(theta))

    def exact(self, theta: Array) -> Quantised:
        """Return the weights in the finest steps that take at most `n_bytes`, or nearly so."""
        about = self._about(theta)
        factor = self._search(theta, about - 1.0, about + 0.5, self._modelled, 0.005)
        while (weights := self.at(theta, factor)).n_bytes(self.parts) > self.n_bytes:
            factor += 0.005 if factor < about + 1.0 else 1.0
            if factor > WIDEST:
                raise SpecError(
                    f"compress: expected at least {weights.n_bytes(self.parts):,} bytes for the "
                    f"weights, got {max(self.n_bytes, 0):,}. Raise bits_per_weight or n_bytes, or "
                    "fit a smaller network."
                )
        return weights

    def _about(self, theta: Array) -> float:
        """Return the factor that the entropy asks for; near that of the last call, if it can."""
        if self._last is not None:
            low, high = self._last - 0.5, self._last + 0.5
            if (
                self._estimate(self.at(theta, low))
                > self.n_bytes
                >= self._estimate(self.at(theta, high))
            ):
                self._last = self._search(theta, low, high, self._estimate, 0.02)
                return self._last
        self._last = self._search(theta, -WIDEST, WIDEST, self._estimate, 0.02)
        return self._last

    def _search(
        self,
        theta: Array,
        low: float,
        high: float,
        size: Callable[[Quantised], float],
        within: float,
    ) -> float:
        """Return the least log2 factor that `size` allows, or the highest."""
        while high - low > within:
            middle = (low + high) / 2
            if size(self.at(theta, middle)) > self.n_bytes:
                low = middle
            else:
                high = middle
        return high

    def _estimate(self, weights: Quantised) -> float:
        return weights.entropy(self.parts) / 8

    def _modelled(self, weights: Quantised) -> float:
        return sum(estimate(weights.codes[part]) for part in self.parts)


class _Tuning:
    """Training of weights that are rounded in every step.

    Parameters
    ----------
    field : Field
    signal : Signal
    quantiser : _Quantiser
    progress : callable, optional
    """

    def __init__(
        self,
        field: Field,
        signal: Signal,
        quantiser: _Quantiser,
        progress: Callable[[FitProgress], object] | None,
    ) -> None:
        self.field, self.signal, self.quantiser = field, signal, quantiser
        self.progress = progress
        self.n_threads = default_n_threads(field.n_threads)
        self.mean, self.spread = signal.statistics()
        spec = field.network.spec
        self.last = spec.slices()[-1]
        self.lr = TABLE_LR if math.prod(spec.table_shape) else LAYERS_LR
        # One engine holds the weights that the optimiser moves, the other those that are rounded
        self.smooth = make_engine(spec, self._standardised(field.network.theta))
        self.rounded = make_engine(spec)
        self.gradient = np.zeros(spec.n_params, np.float32)
        self.loss = math.inf
        self.last_report = time.perf_counter()

    def go(self, max_seconds: float, max_steps: float) -> Array:
        """Train, and return weights in the signal's units that are not rounded yet."""
        began, phase, n_steps, k = time.perf_counter(), -1, 0, 0
        kind, hyper = native_hyper(Adam(self.lr, beta_2=0.99, epsilon=1e-15))
        run = Run(
            self.smooth,
            self.signal.loss,
            kind,
            hyper,
            batch_size=BATCH_SIZE,
            seed=0,
            n_threads=self.n_threads,
        )
        steps: tuple[float, ...] = ()
        try:
            while True:
                x, y = self.signal.draw(k, 1 << 18, self.field.seed)
                k += 1
                size = min(BATCH_SIZE, len(x))
                for start in range(0, len(x) - size + 1, size):
                    seconds = time.perf_counter() - began
                    share = max(seconds / max_seconds, n_steps / max_steps)
                    if share >= 1.0 or self._tell(n_steps, seconds, share):
                        self.signal.release()
                        return self._in_units(self.smooth.get_parameters())
                    theta = self._in_units(self.smooth.get_parameters())
                    if int(share * N_PHASES) > phase:
                        phase = int(share * N_PHASES)
                        steps = self.quantiser.near(theta).steps
                    self._round(theta, steps)
                    self._step(run, x[start : start + size], y[start : start + size], share)
                    n_steps += 1
        except KeyboardInterrupt:
            self.signal.release()
            return self._in_units(self.smooth.get_parameters())

    def score(self, weights: Quantised) -> float:
        """Return the PSNR of a field of these weights."""
        theta = weights.theta(self.quantiser.parts)
        return self.field._score(Network.from_spec(self.field.network.spec, theta), self.signal)

    def _round(self, theta: Array, steps: tuple[float, ...]) -> None:
        parts = self.quantiser.parts
        weights = Quantised.of(theta, parts, steps, DEAD_ZONE)
        self.rounded.set_parameters(self._standardised(weights.theta(parts)))

    def _step(self, run: Run, x: Array, y: Array, share: float) -> None:
        self.loss = self.rounded.evaluate(
            x, y, self.signal.loss, grad=self.gradient, n_threads=self.n_threads
        )
        if math.isfinite(self.loss):
            run.apply(self.gradient, self.lr * (0.01 + 0.5 * (1.0 + math.cos(math.pi * share))))

    def _tell(self, n_steps: int, seconds: float, share: float) -> bool:
        now = time.perf_counter()
        if (
            self.progress is None
            or n_steps == 0
            or now - self.last_report < SECONDS_BETWEEN_REPORTS
        ):
            return False
        self.last_report = now
        psnr = psnr_of(self.loss * self.spread**2, self.signal.peak)
        report = FitProgress(psnr, n_steps, seconds, share, self.lr, self._values)
        return self.progress(report) is True

    def _values(self, coordinates: Array) -> Array:
        y = self.rounded.forward(np.asarray(coordinates, np.float32), self.n_threads)
        return np.asarray(y * np.float32(self.spread) + self.mean.astype(np.float32))

    def _standardised(self, theta: Array) -> Array:
        """Return weights of the signal's units as weights of what training sees."""
        weight, bias = self.last
        result = theta.copy()
        result[weight] /= self.spread
        result[bias] = (result[bias] - self.mean) / self.spread
        return result

    def _in_units(self, theta: Array) -> Array:
        weight, bias = self.last
        theta[weight] = theta[weight].astype(np.float64) * self.spread
        theta[bias] = theta[bias].astype(np.float64) * self.spread + self.mean
        return theta


def _squared_derivatives(net: Network) -> Array:
    """Return (d F / d theta)^2, summed over outputs and averaged over places, up to a factor.

    The gradient of sum v F has, over random signs v, the square's expectation as its own.
    """
    spec, rng = net.spec, np.random.default_rng(0)
    engine = make_engine(spec, net.theta)
    gradient = np.zeros(net.n_params, np.float32)
    total = np.zeros(net.n_params)
    for _ in range(SENSITIVITY_PASSES):
        x = rng.uniform(-1.0, 1.0, (SENSITIVITY_ROWS, spec.d_in)).astype(np.float32)
        signs = rng.choice(np.array([-1.0, 1.0], np.float32), (len(x), spec.d_out))
        # (F - y)^2 with y = F - v has the gradient 2 v dF; v as large as F, lest it be rounded off
        values = engine.forward(x)
        size = np.float32(max(float(np.abs(values).max()), 1e-20))
        engine.evaluate(x, values - signs * size, SquaredError(), grad=gradient)
        total += (gradient.astype(np.float64) / float(size)) ** 2
    return total
