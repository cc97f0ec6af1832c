"""The one door to the native engine: typed wrappers, and what this machine offers.

The bindings convert nothing, so this is where an array becomes C-contiguous, aligned and of the
engine's dtype; one that already is passes without a copy. Arguments are trusted here: the edge
(``core/checks.py``) has judged them.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lamina import _native
from lamina.core.errors import SpecError
from lamina.core.jet_loss import JetLoss
from lamina.core.spec import NetworkSpec
from lamina.core.threads import default_n_threads as default_n_threads
from lamina.core.threads import recent_n_threads as recent_n_threads

Array = npt.NDArray[Any]

# Below this many multiplications a second thread costs more to wake (2.6 us, ENGINE.md) than it
# saves; the result does not depend on it, since a row's bits never depend on the thread count.
SERIAL_MULTIPLICATIONS = 1 << 18


class LossLike(Protocol):
    """What the engine needs to know of a loss: its name and its numbers."""

    @property
    def name(self) -> str:
        """One of the names in the contract, such as "huber"."""

    @property
    def params(self) -> Sequence[float]:
        """Its numbers, in the engine's order."""


def make_engine(spec: NetworkSpec, theta: Array | None = None) -> Engine:
    """Build an engine for `spec`, holding the parameters `theta` where they are given."""
    engine = Engine(spec)
    if theta is not None:
        engine.set_parameters(theta)
    return engine


class Engine:
    """A network inside the native engine: forward, trace, loss and gradient.

    Parameters
    ----------
    spec : NetworkSpec
        The architecture; ``spec.dtype`` chooses float32 or float64 arithmetic.

    Attributes
    ----------
    dtype : numpy.dtype
        Every floating array that goes in is converted to it, and every result has it.
    native : Engine32 or Engine64
        The bound object itself.
    predict : callable
        ``predict(x, out, n_threads)``: the shortest way through for arrays that are C-contiguous,
        aligned and of `dtype`. Returns y_pred, or None, having done nothing, where `x` or `out`
        (None: a new array) is anything else; calls `n_threads` when the work is worth asking.
    """

    __slots__ = ("dtype", "n_members", "n_params", "native", "predict", "spec")

    def __init__(self, spec: NetworkSpec) -> None:
        _check_isa()
        self.spec = spec
        self.dtype: np.dtype[Any] = np.dtype(spec.dtype)
        native = _native.Engine64 if self.dtype == np.float64 else _native.Engine32
        encoding = None if spec.encoding is None else spec.encoding.native(spec.d_in)
        self.n_members: int = spec.n_members
        self.native: Any = native(spec.d_in, _layers(spec), spec.output, encoding, self.n_members)
        self.predict: Callable[[Any, Any, Callable[[], int]], Any] = self.native.predict
        self.n_params: int = self.native.n_params

    def set_parameters(self, theta: Array) -> None:
        """Copy the flat parameter vector in and pack it for the kernels."""
        self.native.set_parameters(contiguous(theta, self.dtype))

    def get_parameters(self) -> Array:
        """Return the flat parameter vector as a new array."""
        theta = np.empty(self.n_params, self.dtype)
        self.native.get_parameters(theta)
        return theta

    def forward(
        self,
        x: Array,
        n_threads: int | None = None,
        out: Array | None = None,
        *,
        bfloat16: bool = False,
    ) -> Array:
        """Return y_pred ``(n, d_out)`` for x ``(n, d_in)``, in `out` if it is given.

        Where there are members, their mean.
        """
        if self.n_members:
            of_members = self.forward_members(x, n_threads)
            return np.asarray(of_members.mean(axis=0, dtype=np.float64), self.dtype)
        x = contiguous(x, self.dtype)
        if out is None:
            out = np.empty((len(x), self.spec.d_out), self.dtype)
        forward = self.native.forward_half if bfloat16 else self.native.forward
        forward(x, out, self.threads_for(len(x), n_threads))
        return out

    def forward_members(self, x: Array, n_threads: int | None = None) -> Array:
        """Return each member's y_pred, ``(n_members, n, d_out)``."""
        x = contiguous(x, self.dtype)
        out = np.empty((self.n_members * len(x), self.spec.d_out), self.dtype)
        self.native.forward(x, out, self.threads_for(self.n_members * len(x), n_threads))
        return out.reshape(self.n_members, len(x), self.spec.d_out)

    def encode(self, x: Array, j: int | None = None, n_threads: int | None = None) -> Array:
        """Return h_0 ``(n, d_0)`` of a network with an encoding, or d h_0 / d x_j."""
        x = contiguous(x, self.dtype)
        out = np.empty((len(x), self.spec.layer_dims[0]), self.dtype)
        derivative = -1 if j is None else j
        self.native.encode(x, derivative, out, default_n_threads(n_threads))
        return out

    def encode_backward(
        self,
        x: Array,
        g: Array,
        j: int | None = None,
        *,
        out: Array | None = None,
        n_threads: int | None = None,
    ) -> Array:
        """Return d <g, h_0> / d table, or d <g, d h_0 / d x_j> / d table, of the table's shape.

        `out`, C-contiguous and of the engine's dtype, is written to where it is given.
        """
        x, g = contiguous(x, self.dtype), contiguous(g, self.dtype)
        grad = np.empty(self.spec.table_shape, self.dtype) if out is None else out
        derivative = -1 if j is None else j
        flat = grad.reshape(-1)
        self.native.encode_backward(x, derivative, g, flat, default_n_threads(n_threads))
        return grad

    def trace(self, x: Array) -> tuple[list[Array], list[Array]]:
        """Return the pre-activations z and activations h of layers 1…L, each ``(n, d_l)``."""
        x = contiguous(x, self.dtype)
        widths = [*self.spec.widths, self.spec.d_out]
        z = [np.empty((len(x), width), self.dtype) for width in widths]
        h = [np.empty((len(x), width), self.dtype) for width in widths]
        self.native.trace(x, z, h)
        return z, h

    def evaluate(
        self,
        x: Array,
        y: Array,
        loss: LossLike,
        *,
        sample_weight: Array | None = None,
        output_weight: Array | None = None,
        grad: Array | None = None,
        grad_x: Array | None = None,
        n_threads: int | None = None,
    ) -> float:
        """Return the loss, dropout off, and fill the gradients that are asked for.

        Parameters
        ----------
        x : array (n, d_in)
        y : array (n,) of class indices or (n, n_y) of numbers
            Integer class indices are for cross_entropy only.
        loss : loss object
            ``.name`` and ``.params``.
        sample_weight, output_weight : array (n,) and (d_out,), optional
        grad, grad_x : array (n_params,) and (n, d_in), optional
            Written in place: C-contiguous and of the engine's dtype.
        n_threads : int, optional
        """
        x = contiguous(x, self.dtype)
        if isinstance(loss, JetLoss):
            return loss.evaluate(self, x, y, sample_weight, grad, grad_x, n_threads)
        return float(
            self.native.evaluate(
                x,
                contiguous_target(y, loss, self.dtype),
                loss.name,
                [float(p) for p in loss.params],
                _optional(sample_weight, self.dtype),
                _optional(output_weight, self.dtype),
                grad,
                grad_x,
                self.threads_for(3 * len(x), n_threads),
            )
        )

    def jet(
        self,
        x: Array,
        *,
        coefficients: Array | None = None,
        values: Array | None = None,
        jacobian: Array | None = None,
        curvature: Array | None = None,
        n_threads: int | None = None,
    ) -> None:
        """Fill the derivatives of the outputs by the inputs that are asked for, dropout off.

        Parameters
        ----------
        x : array (n, d_in)
        coefficients : array (d_in,), optional
            w_j of the curvature sum_j w_j d^2 y_pred / dx_j^2.
        values, jacobian, curvature : array (n, d_out), (n, d_out, d_in), (n, d_out), optional
            Written in place: C-contiguous and of the engine's dtype.
        n_threads : int, optional
        """
        x = contiguous(x, self.dtype)
        self.native.jet(
            x,
            _optional(coefficients, self.dtype),
            values,
            jacobian,
            curvature,
            self.threads_for(len(x) * (1 + self.spec.d_in), n_threads),
        )

    def jet_backward(
        self,
        x: Array,
        *,
        coefficients: Array | None = None,
        d_values: Array | None = None,
        d_jacobian: Array | None = None,
        d_curvature: Array | None = None,
        grad: Array | None = None,
        grad_x: Array | None = None,
        n_threads: int | None = None,
    ) -> None:
        """Fill the gradient of a function of what `jet` returns, from its derivatives by that.

        Parameters
        ----------
        x, coefficients : as for `jet`
        d_values, d_jacobian, d_curvature : array (n, d_out), (n, d_out, d_in), (n, d_out), optional
            d function / d of each; None is zero.
        grad, grad_x : array (n_params,) and (n, d_in), optional
            Written in place: C-contiguous and of the engine's dtype.
        n_threads : int, optional
        """
        x = contiguous(x, self.dtype)
        self.native.jet_backward(
            x,
            _optional(coefficients, self.dtype),
            _optional(d_values, self.dtype),
            _optional(d_jacobian, self.dtype),
            _optional(d_curvature, self.dtype),
            grad,
            grad_x,
            self.threads_for(3 * len(x) * (1 + self.spec.d_in), n_threads),
        )

    def hessian_vector(self, x: Array, v: Array, n_threads: int | None = None) -> Array:
        """Return the Hessian of each output times v (n, d_in), as (n, d_out, d_in)."""
        x = contiguous(x, self.dtype)
        out = np.empty((len(x), self.spec.d_out, self.spec.d_in), self.dtype)
        threads = self.threads_for(2 * len(x) * (1 + self.spec.d_out), n_threads)
        self.native.hessian_vector(x, contiguous(v, self.dtype), out, threads)
        return out

    def threads_for(self, n: int, n_threads: int | None = None) -> int:
        """Return how many threads a pass over `n` rows deserves; the argument has the last word."""
        if n_threads is None and n * self.n_params < SERIAL_MULTIPLICATIONS:
            return 1
        return default_n_threads(n_threads)


class Run:
    """A training run: the optimiser's state beside an engine whose parameters it moves.

    Parameters
    ----------
    engine : Engine
    loss : loss object
    optimizer : {"adam", "sgd"}
    hyper : mapping
        adam: beta_1, beta_2, epsilon, epsilon_hat; sgd: momentum, nesterov; both: weight_decay,
        l2, l2_per_row, value_scale, bfloat16. Names left out take `HYPER_DEFAULTS`.
    batch_size : int
    seed : int, 0 ≤ seed < 2**64
        Rows are shuffled, and dropout masks drawn, from the seed and the epoch alone.
    n_threads : int, optional
    """

    __slots__ = ("dtype", "engine", "loss", "n_threads", "native")

    def __init__(
        self,
        engine: Engine,
        loss: LossLike,
        optimizer: str,
        hyper: Mapping[str, float | bool],
        *,
        batch_size: int,
        seed: int,
        n_threads: int | None = None,
    ) -> None:
        self.engine = engine
        self.loss = loss
        self.dtype = engine.dtype
        self.n_threads = default_n_threads(n_threads)
        native = _native.Run64 if self.dtype == np.float64 else _native.Run32
        self.native: Any = native(
            engine.native,
            loss.name,
            [float(p) for p in loss.params],
            optimizer,
            {**HYPER_DEFAULTS[optimizer], **hyper},
            batch_size,
            seed,
            self.n_threads,
        )

    def epochs(
        self,
        x: Array,
        y: Array,
        lr: Array,
        *,
        first_epoch: int,
        n_epochs: int,
        sample_weight: Array | None = None,
        output_weight: Array | None = None,
        order: Array | None = None,
        shuffle: bool = True,
        seconds: float = math.inf,
    ) -> tuple[Array, bool]:
        """Train for up to `n_epochs`; return the mean losses of those completed.

        Parameters
        ----------
        x, y : arrays (n, d_in) and (n,) or (n, n_y)
        lr : float64 array (n_epochs * ceil(n / batch_size),)
            One learning rate a step.
        first_epoch : int
            The index of the first of them, which with the seed decides the order of the rows.
        order : int64 array (n_epochs, n), optional
            The order of the rows, instead of the engine's own.
        shuffle : bool
            False visits the rows as they come.
        seconds : float
            No epoch begins once so many seconds have passed; the first always does.

        Returns
        -------
        losses : float64 array (n_done,)
            One finite mean loss an epoch. Fewer than `n_epochs`: the time was up, or …
        diverged : bool
            … the next epoch's loss was not finite; the parameters are then not to be trusted.

        Raises
        ------
        KeyboardInterrupt
            Within 0.2 s of Ctrl-C; the engine holds the parameters of the last whole step.
        """
        losses = np.zeros(n_epochs)
        n_done: int = self.native.epochs(
            contiguous(x, self.dtype),
            contiguous_target(y, self.loss, self.dtype),
            _optional(sample_weight, self.dtype),
            _optional(output_weight, self.dtype),
            None if order is None else contiguous(order, np.dtype(np.int64)),
            shuffle,
            first_epoch,
            n_epochs,
            contiguous(lr, np.dtype(np.float64)),
            losses,
            seconds,
        )
        return _completed(losses, n_done)

    @property
    def n_parts(self) -> int:
        """In how many parts a step is cut: more threads than these find nothing to do."""
        return int(self.native.n_parts)

    def apply(self, gradient: Array, lr: float) -> None:
        """Take one step of the optimiser on a gradient (n_params,) of the caller's own."""
        self.native.apply(contiguous(gradient, self.dtype), lr)

    @property
    def step(self) -> int:
        """Steps taken since the run began."""
        return int(self.native.step)

    def get_state(self) -> tuple[Array, Array]:
        """Return copies of the two moments, in theta's layout; sgd: the velocity and zeros."""
        m = np.zeros(self.engine.n_params, self.dtype)
        v = np.zeros(self.engine.n_params, self.dtype)
        self.native.get_state(m, v)
        return m, v

    def set_state(self, m: Array, v: Array, step: int) -> None:
        """Continue from these moments, after `step` steps."""
        self.native.set_state(contiguous(m, self.dtype), contiguous(v, self.dtype), step)


def make_grouped(
    n_experts: int,
    d_in: int,
    layers: Sequence[tuple[int, str, bool]],
    precision: str,
    on_host: bool = False,
) -> Any:
    """Return the native products of `core/grouped.py` for layers (d_out, activation, gated)."""
    _check_isa()
    native = {
        "float32": _native.Grouped32,
        "float64": _native.Grouped64,
        "bfloat16": _native.Grouped16,
        "int8": _native.Grouped8,
    }[precision]
    return native(n_experts, d_in, list(layers), on_host)


def set_host(address: int) -> None:
    """Say where GOMP_parallel of the process's OpenMP runtime lies, for products ``on_host``.

    Parameters
    ----------
    address : int
        0: there is none, and they run on the engine's own threads.
    """
    _native.set_host(address)


def has_host() -> bool:
    """Tell whether products ``on_host`` have a host's threads: not in a forked child."""
    return bool(_native.has_host())


@dataclass(frozen=True)
class Member:
    """What one of several networks does in a call of `train_together`.

    Attributes
    ----------
    run : Run
    lr : float64 array
        As in `Run.epochs`, and so are `first_epoch`, `n_epochs` and `seconds`.
    index : int32 array (n_rows,), optional
        The rows of x that it learns from.
    sample_weight : array (n,), optional
        Of all rows of x.
    held : (x, y, sample_weight or None), optional
        Rows to be scored on afterwards, by one thread.
    """

    run: Run
    lr: Array
    first_epoch: int
    n_epochs: int
    seconds: float = math.inf
    index: Array | None = None
    sample_weight: Array | None = None
    held: tuple[Array, Array, Array | None] | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a `Member`: `losses` and `diverged` as `Run.epochs` returns them.

    `scored` has the loss of the held rows and y_pred ``(n_held, d_out)``; None where there are
    none, or not all epochs were done.
    """

    losses: Array
    diverged: bool
    scored: tuple[float, Array] | None = None


def train_together(
    members: Sequence[Member], x: Array, y: Array, n_threads: int | None = None
) -> list[Outcome]:
    """Train networks of one shape and loss on the rows of x, as many at once as there are threads.

    Each does what `Run.epochs` would have done, bit for bit.

    Parameters
    ----------
    members : sequence of Member
        Their runs decide in how many parts a step is cut: a run made for one thread is trained
        by one alone, threads that find no member left help those made for more.
    x, y : arrays (n, d_in) and (n,) or (n, n_y)
    n_threads : int, optional

    Raises
    ------
    KeyboardInterrupt
        Within 0.2 s of Ctrl-C; each engine holds the parameters of its last whole step.
    """
    dtype, loss = members[0].run.dtype, members[0].run.loss
    parts, losses, predicted = [], [], []
    for member in members:
        losses.append(np.zeros(member.n_epochs))
        held, y_pred = None, None
        if member.held is not None:
            x_held, y_held, weight = member.held
            y_pred = np.empty((len(x_held), member.run.engine.spec.d_out), dtype)
            held = (
                contiguous(x_held, dtype),
                contiguous_target(y_held, loss, dtype),
                _optional(weight, dtype),
                y_pred,
            )
        predicted.append(y_pred)
        parts.append(
            (
                member.run.native,
                _optional(member.index, np.dtype(np.int32)),
                _optional(member.sample_weight, dtype),
                member.first_epoch,
                member.n_epochs,
                contiguous(member.lr, np.dtype(np.float64)),
                losses[-1],
                float(member.seconds),
                held,
            )
        )
    native = _native.train_together(
        parts, contiguous(x, dtype), contiguous_target(y, loss, dtype), default_n_threads(n_threads)
    )
    outcomes = []
    for (n_done, value), of_member, y_pred in zip(native, losses, predicted, strict=True):
        done, diverged = _completed(of_member, n_done)
        is_scored = n_done == len(of_member)
        scored = (value, y_pred) if y_pred is not None and is_scored else None
        outcomes.append(Outcome(done, diverged, scored))
    return outcomes


def _completed(losses: Array, n_done: int) -> tuple[Array, bool]:
    """Return the losses of the epochs completed, and whether the next one's was not finite."""
    not_finite = np.flatnonzero(~np.isfinite(losses))  # what was not reached is still zero
    if len(not_finite):
        return losses[: int(not_finite[0])], True
    return losses[:n_done], False


HYPER_DEFAULTS: dict[str, dict[str, float | bool]] = {
    "adam": {
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-8,
        "epsilon_hat": False,  # True: epsilon joins sqrt(v) before the bias correction
        "weight_decay": 0.0,
        "l2": 0.0,
        "l2_per_row": False,  # True: l2 over the batch's weight, as scikit-learn's alpha
        "value_scale": 1.0,  # of the loss as reported, the l2 term apart
        "bfloat16": False,  # True: products in bfloat16, everything else in float32
    },
    "sgd": {
        "momentum": 0.0,
        "nesterov": False,
        "weight_decay": 0.0,
        "l2": 0.0,
        "l2_per_row": False,
        "value_scale": 1.0,
        "bfloat16": False,
    },
}


def contiguous(a: Any, dtype: np.dtype[Any]) -> Array:
    """Return `a` C-contiguous, aligned and of `dtype`: itself where it already is."""
    clean: Array = np.asarray(a, dtype, order="C")
    return clean if clean.flags.aligned else clean.copy()


def contiguous_target(y: Array, loss: LossLike, dtype: np.dtype[Any]) -> Array:
    """Return `y` as the engine reads it: int32 class indices ``(n,)``, or ``(n, n_y)`` of `dtype`.

    Whole numbers in one dimension are class indices under cross_entropy and numbers elsewhere.
    """
    if loss.name == "cross_entropy" and y.ndim == 1:
        return contiguous(y, np.dtype(np.int32))
    return contiguous(y if y.ndim == 2 else y[:, np.newaxis], dtype)


def _optional(a: Array | None, dtype: np.dtype[Any]) -> Array | None:
    return None if a is None else contiguous(a, dtype)


def _layers(spec: NetworkSpec) -> list[tuple[int, str, list[int], bool, float]]:
    """Return the native engine's description of each layer, 1…L."""
    widths = [*spec.widths, spec.d_out]
    activations = [*spec.activations, "identity"]
    dropouts = [*(spec.dropout for _ in spec.widths), 0.0]
    return [
        (width, activation, list(spec.sources(layer)), spec.residual_at(layer), dropout)
        for layer, (width, activation, dropout) in enumerate(
            zip(widths, activations, dropouts, strict=True), start=1
        )
    ]


def require_memory(n_bytes: int) -> None:
    """Raise MemoryError, with both numbers, where `n_bytes` is more memory than is free.

    Systems promise more memory than they have, and kill the process that takes them at their word.
    """
    _native.require_memory(n_bytes)


def peak_flops(
    precision: str = "float32", n_threads: int | None = None, seconds: float = 0.02
) -> float | None:
    """Measure the most floating-point operations a second that this machine can do.

    A loop of independent multiply-adds (or products of tiles) that touch registers only, so that
    neither memory nor the order of instructions holds it back. A multiply-add counts as two.

    Parameters
    ----------
    precision : {"float32", "float64", "bfloat16"}
        On the instruction set, or the bfloat16 unit, in use.
    n_threads : int, optional
    seconds : float
        How long; clocks change with load and heat, so measure it next to what it is compared with.

    Returns
    -------
    float or None
        Operations a second; None for bfloat16 where there is no unit for it.
    """
    measured: float = _native.peak_flops(precision, default_n_threads(n_threads), seconds)
    return measured or None


class Info(dict[str, Any]):
    """A dictionary that prints as a table, one line a fact."""

    def __str__(self) -> str:
        width = max(map(len, self), default=0)
        return "\n".join(f"{key:<{width}}  {_plain(value)}" for key, value in self.items())

    __repr__ = __str__


def info() -> Info:
    """Return version, instruction sets, threads and precisions: what a report should quote.

    Examples
    --------
    >>> import lamina
    >>> sorted(lamina.info()["precisions"])
    ['bfloat16', 'float32', 'float64']
    """
    from lamina import __version__

    _check_isa()
    return Info(
        version=__version__,
        isa=_native.isa(),
        isas=list(_native.isas()),
        n_threads=default_n_threads(),
        precisions={"float32": True, "float64": True, "bfloat16": bfloat16_unit() is not None},
        bfloat16_unit=bfloat16_unit(),
        int8_unit=str(_native.byte_isa()),
        features=dict(_native.features()),
        machine=platform.machine(),
        python=platform.python_version(),
        numpy=np.__version__,
    )


def _check_isa() -> None:
    wish = _native.requested_isa()
    if wish:
        raise SpecError(
            f"LAMINA_ISA: expected one of {', '.join(_native.isas())} on this machine, got "
            f"{wish!r}. Correct the environment variable or unset it."
        )


def isa() -> str:
    """Return the name of the instruction set in use."""
    return str(_native.isa())


def bfloat16_unit() -> str | None:
    """Return what multiplies in bfloat16 here, "amx" or "avx512_bf16"; None where nothing does."""
    return str(_native.half_isa()) or None


def check_bfloat16(where: str) -> None:
    """Raise SpecError where this processor, or the instruction set chosen, has no bfloat16."""
    if bfloat16_unit() is not None:
        return
    _check_isa()
    if _native.isa() != "avx512" and "avx512" in _native.isas():
        got = f"the instruction set {_native.isa()}, chosen by LAMINA_ISA"
        advice = "Unset it, or pass precision=None."
    else:
        got = "one that has neither"
        advice = "Pass precision=None, which follows the network's dtype."
    raise SpecError(
        f"{where}: expected a processor with AMX-BF16 or AVX-512-BF16 for precision='bfloat16', "
        f"got {got}. {advice}"
    )


def resolve_precision(precision: str | None, dtype: str, where: str) -> str:
    """Return the precision an argument asks for; None follows the network's dtype."""
    if precision is None or precision == dtype:
        return dtype
    if precision == "bfloat16" and dtype == "float32":
        check_bfloat16(where)
        return precision
    if precision in ("float32", "float64", "bfloat16"):
        wanted = "float32" if precision == "bfloat16" else precision
        raise SpecError(
            f"{where}: expected a network of dtype {wanted!r} for precision={precision!r}, got "
            f"{dtype!r}. Make the network with dtype={wanted!r}, or pass precision=None."
        )
    raise SpecError(
        f"{where}: expected precision None, 'float32', 'float64' or 'bfloat16', "
        f"got {precision!r}. Pass None to follow the network's dtype."
    )


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {'yes' if has else 'no'}" for name, has in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
