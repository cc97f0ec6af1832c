"""Grouped matrix products: one small network an expert, applied to the rows that are its own.

For mixtures of experts (Shazeer et al. 2017, arXiv:1701.06538). A layer of expert e computes, with
phi the activation::

    plain:  h = phi(x W[e]^T + b[e])
    gated:  h = phi(x G[e]^T + c[e]) * (x W[e]^T + b[e])        (Shazeer 2020, arXiv:2002.05202)

`GroupedLinear` is one such layer; `ExpertFeedForward` is two, the second plain and linear. Rows
come in one of two forms:

- sorted by expert, with ``offsets``: rows offsets[e] … offsets[e + 1] - 1 belong to expert e;
- as a router leaves them, with ``experts`` (n, top_k) and ``share`` (n, top_k): row t goes to the
  experts[t, k], and y[t] = sum_k share[t, k] f_{experts[t, k]}(x[t]).

All experts run in one native call. A row's result does not depend, bit for bit, on the other rows,
on their order or on the number of threads. (One exception: in bfloat16 on AMX, an expert of at most
16 rows adds up in another order than one of more; both are within bfloat16's rounding.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lamina.core.checks import check_choice, check_count, shape_of
from lamina.core.engine import Array, check_bfloat16, contiguous, make_grouped
from lamina.core.errors import DataError, ShapeError, SpecError
from lamina.core.functions import ACTIVATIONS
from lamina.core.threads import default_n_threads


class ExpertWeights(NamedTuple):
    """One layer's parameters of all experts, or their gradients.

    Attributes
    ----------
    weight : array (n_experts, d_out, d_in)
    bias : array (n_experts, d_out) or None
    gate : array (n_experts, d_out, d_in) or None
        Of a gated layer, which needs it; None elsewhere.
    gate_bias : array (n_experts, d_out) or None
    """

    weight: Array
    bias: Array | None = None
    gate: Array | None = None
    gate_bias: Array | None = None


@dataclass(frozen=True)
class ExpertPass:
    """What `forward` keeps for `backward`: activations and slopes, about as many as torch keeps.

    Its bytes: n * top_k * itemsize * (d_in + the widths of the layers, once, twice where the
    activation needs its slope stored, three times where the layer is gated); in bfloat16 x and
    hidden activations are kept in two forms of 2 bytes each. It may be used any number of times.
    The weights are not copied: leave them as they are until the last use.
    """

    native: Any
    weights: tuple[ExpertWeights, ...]
    n: int
    top_k: int


@dataclass(frozen=True)
class ExpertPack:
    """Weights laid out for inference, as many bytes as the weights (widths rounded up to 32)."""

    native: Any


@dataclass(frozen=True)
class ExpertGradients:
    """Gradients of one backward pass; what was not asked for is None.

    Attributes
    ----------
    x : array (n, d_in) or None
    share : array (n, top_k) or None
    weights : tuple of ExpertWeights, one a layer, or None
    """

    x: Array | None
    share: Array | None
    weights: tuple[ExpertWeights, ...] | None


class Experts:
    """`n_experts` networks of one shape; see `GroupedLinear` and `ExpertFeedForward`.

    Parameters
    ----------
    n_experts, d_in : int, at least 1
    layers : sequence of (d_out, activation, gated)
    dtype : {"float32", "float64"}
        Of the arithmetic and of every result; arrays of another dtype are converted.
    precision : None, "bfloat16" or "int8"
        "bfloat16" rounds rows, weights and what passes between layers to 8 bits and multiplies on
        AMX or AVX-512-BF16, with float32 sums; arrays that go in and come out stay float32. Refused
        where the processor has neither. "int8", which only runs (`pack` and a call), takes whole
        numbers of -127 to 127, with one scale every 128 inputs, of each output's weights and of
        each row, measured anew in every layer; sums are exact. AVX-512-VNNI multiplies them, and
        plain loops, slowly, where there is none. Its error is some 1 to 2 % of a result.
    on_host : bool, default False
        Whether to run on the threads of the process's OpenMP runtime, where `engine.set_host` said
        that there is one: beside PyTorch's own products, whose threads spin between them.
    """

    def __init__(
        self,
        n_experts: int,
        d_in: int,
        layers: Sequence[tuple[int, str, bool]],
        *,
        dtype: str = "float32",
        precision: str | None = None,
        on_host: bool = False,
    ) -> None:
        where = type(self).__name__
        self.n_experts = check_count(n_experts, "n_experts", where)
        self.d_in = check_count(d_in, "the input's width", where)
        self.layers = tuple(
            (
                check_count(d_out, "a layer's width", where),
                check_choice(activation, ACTIVATIONS, "activation", where),
                bool(gated),
            )
            for d_out, activation, gated in layers
        )
        self.dtype: np.dtype[Any] = np.dtype(
            check_choice(dtype, ("float32", "float64"), "dtype", where)
        )
        if precision is not None:
            check_choice(precision, ("bfloat16", "int8"), "precision", where)
            if self.dtype != np.float32:
                raise SpecError(
                    f"{where}: expected dtype float32 beside precision={precision!r}, got "
                    f"{self.dtype}. Leave one of them out."
                )
            if precision == "bfloat16":
                check_bfloat16(where)
        self.precision = precision
        self.native: Any = make_grouped(
            self.n_experts, self.d_in, self.layers, precision or self.dtype.name, on_host
        )

    @property
    def d_out(self) -> int:
        """The width of a result."""
        return self.layers[-1][0]

    def pack(self, weights: Sequence[ExpertWeights], *, n_threads: int | None = None) -> ExpertPack:
        """Lay weights out for repeated calls, once; the pack does not follow later changes.

        Parameters
        ----------
        weights : sequence of ExpertWeights, one a layer
        n_threads : int, optional

        Raises
        ------
        ShapeError, SpecError
            If an array has another shape, or a gate is missing or too many.
        """
        checked = self._weights(weights, "pack")
        return ExpertPack(self.native.pack(checked, default_n_threads(n_threads)))

    def __call__(
        self,
        pack: ExpertPack,
        x: Array,
        *,
        offsets: Array | None = None,
        experts: Array | None = None,
        share: Array | None = None,
        out: Array | None = None,
        n_threads: int | None = None,
    ) -> Array:
        """Return y ``(n, d_out)``: what each row's experts make of it.

        Parameters
        ----------
        pack : ExpertPack
            From `pack`.
        x : array (n, d_in)
            NaN passes through to its own row.
        offsets : array of int (n_experts + 1,), optional
            The rows come sorted: offsets[e] is the first row of expert e, the last one is n.
        experts : array of int (n, top_k), optional
            Which experts see each row, 0 … n_experts - 1. Give this or `offsets`.
        share : array (n, top_k), optional
            The weight of each of them; None: 1. The shares need not add up to 1.
        out : array (n, d_out), optional
            Where to write y: C-contiguous and of the experts' dtype.
        n_threads : int, optional

        Raises
        ------
        ShapeError, DataError, SpecError
            If an array has another shape or holds something else than it should.
        """
        route = self._route(x, offsets, experts, share, out, "")
        self.native.forward(pack.native, *route, default_n_threads(n_threads))
        return route[1]

    def run(
        self,
        pack: ExpertPack,
        x: Array,
        out: Array,
        *,
        offsets: Array | None = None,
        experts: Array | None = None,
        share: Array | None = None,
        n_threads: int = 1,
    ) -> None:
        """Write to `out` what a call returns, without its checks and conversions (9 us).

        For callers that know their arrays: C-contiguous, x and share of `dtype`, offsets int64,
        experts int32. The engine refuses others, with shorter words.
        """
        self.native.forward(pack.native, x, out, experts, offsets, share, n_threads)

    def forward(
        self,
        weights: Sequence[ExpertWeights],
        x: Array,
        *,
        offsets: Array | None = None,
        experts: Array | None = None,
        share: Array | None = None,
        out: Array | None = None,
        n_threads: int | None = None,
    ) -> tuple[Array, ExpertPass]:
        """Return y as a call does, and what `backward` needs.

        For training: weights are taken as they are, without a pack that would not live to the next
        step. Parameters are those of a call, with `weights` in the place of `pack`.

        Raises
        ------
        SpecError
            The precision is "int8", which does not learn; otherwise as for a call.
        """
        if self.precision == "int8":
            raise SpecError(
                f"{type(self).__name__}.forward: expected a precision that learns, got 'int8'. "
                "Make it with precision=None or 'bfloat16', or pack the weights and call it."
            )
        route = self._route(x, offsets, experts, share, out, ".forward")
        checked = self._weights(weights, "forward")
        native = self.native.forward_to_learn(checked, *route, default_n_threads(n_threads))
        top_k = 1 if route[2] is None else route[2].shape[1]
        return route[1], ExpertPass(native, checked, len(route[0]), top_k)

    def backward(
        self,
        passed: ExpertPass,
        grad_y: Array,
        *,
        x: bool = True,
        share: bool = True,
        weights: bool | Sequence[ExpertWeights] = True,
        keep_idle: bool = False,
        n_threads: int | None = None,
    ) -> ExpertGradients:
        """Return the gradients of sum(grad_y * y).

        Parameters
        ----------
        passed : ExpertPass
            From `forward`.
        grad_y : array (n, d_out)
        x, share : bool
            Whether those gradients are wanted; they cost less when they are not.
        weights : bool or sequence of ExpertWeights
            Whether the parameters' gradients are wanted, or the arrays to write them to (fresh
            memory costs as much as a tenth of the arithmetic), with None for what is not wanted.
        keep_idle : bool, default False
            Of an expert that saw no row, leave the arrays to write to as they are instead of
            setting them to zero: for arrays known to be zero there, or for an optimiser that
            passes idle experts over. With one token most experts are idle, and their zeros cost
            more than everything else.
        n_threads : int, optional

        Raises
        ------
        ShapeError, DataError
            If grad_y or an array to write to does not fit.
        """
        grad_y = self._matrix(grad_y, (passed.n, self.d_out), "grad_y", "backward")
        grad_x = np.empty((passed.n, self.d_in), self.dtype) if x else None
        grad_share = np.empty((passed.n, passed.top_k), self.dtype) if share else None
        if isinstance(weights, bool):
            into = tuple(_zeros(layer) for layer in passed.weights) if weights else None
            keep_idle = True
        else:
            into = self._weights(weights, "backward", written=True)
        native_into = [(None,) * 4] * len(self.layers) if into is None else list(into)
        self.native.backward(
            passed.native,
            list(passed.weights),
            grad_y,
            grad_x,
            grad_share,
            native_into,
            keep_idle,
            default_n_threads(n_threads),
        )
        return ExpertGradients(grad_x, grad_share, into)

    def _weights(
        self, weights: Sequence[ExpertWeights], where: str, *, written: bool = False
    ) -> tuple[ExpertWeights, ...]:
        """Check one tuple of arrays a layer, and make them what the engine reads or writes."""
        where = f"{type(self).__name__}.{where}"
        if len(weights) != len(self.layers):
            raise SpecError(
                f"{where}: expected the arrays of {len(self.layers)} layers, got {len(weights)}. "
                f"Pass one ExpertWeights a layer."
            )
        d_in, checked = self.d_in, []
        for layer, (d_out, _, gated) in zip(weights, self.layers, strict=True):
            weight, bias, gate, gate_bias = layer
            missing = gated and gate is None and not written
            if missing or not (gated or (gate is None and gate_bias is None)):
                raise SpecError(
                    f"{where}: expected {'a gate' if gated else 'no gate'} in the layer of width "
                    f"{d_out}, got {'none' if gate is None else 'one'}. Gated layers have gate and "
                    f"perhaps gate_bias, others neither."
                )
            cube, plane = (self.n_experts, d_out, d_in), (self.n_experts, d_out)
            arrays = (
                self._array(a, shape, name, where, written=written)
                for a, shape, name in (
                    (weight, cube, "weight"),
                    (bias, plane, "bias"),
                    (gate, cube, "gate"),
                    (gate_bias, plane, "gate_bias"),
                )
            )
            checked.append(ExpertWeights(*arrays))  # type: ignore[arg-type]
            d_in = d_out
        return tuple(checked)

    def _array(
        self, a: Array | None, shape: tuple[int, ...], name: str, where: str, *, written: bool
    ) -> Array | None:
        if a is None and (written or name != "weight"):
            return None
        return self._fit(a, shape, name, where) if not written else self._out(a, shape, name, where)

    def _fit(self, a: Any, shape: tuple[int, ...], name: str, where: str) -> Array:
        if shape_of(a) != shape:
            raise ShapeError(
                f"{where}: expected {name} of shape {shape}, got {shape_of(a)}. "
                f"Pass an array of that shape."
            )
        kind = np.asarray(a).dtype.kind
        if kind not in "fiub":
            raise DataError(
                f"{where}: expected {name} as real numbers, got dtype {np.asarray(a).dtype}. "
                f"Convert it to {self.dtype} first."
            )
        return contiguous(a, self.dtype)

    def _matrix(self, a: Any, shape: tuple[int, int], name: str, where: str) -> Array:
        return self._fit(a, shape, name, f"{type(self).__name__}.{where}")

    def _out(self, a: Any, shape: tuple[int, ...], name: str, where: str) -> Array:
        if (
            isinstance(a, np.ndarray)
            and a.shape == shape
            and a.dtype == self.dtype
            and a.flags.carray  # C-contiguous, aligned and writeable
        ):
            return a
        raise ShapeError(
            f"{where}: expected {name} to write to as a writeable, C-contiguous {self.dtype} "
            f"array of shape {shape}, got {_kind(a)}. Make it with "
            f"np.empty({shape}, '{self.dtype}')."
        )

    def _route(
        self,
        x: Array,
        offsets: Array | None,
        experts: Array | None,
        share: Array | None,
        out: Array | None,
        where: str,
    ) -> tuple[Array, Array, Array | None, Array | None, Array | None]:
        """Return x, out, experts, offsets and share as the engine takes them."""
        name = f"{type(self).__name__}{where}"
        n = shape_of(x)[0] if len(shape_of(x)) == 2 else -1
        if n < 0:
            raise ShapeError(
                f"{name}: expected x of shape (n, {self.d_in}), got {shape_of(x)}. "
                f"Pass one row a sample."
            )
        x = self._fit(x, (n, self.d_in), "x", name)
        y = np.empty((n, self.d_out), self.dtype)
        if out is not None:
            y = self._out(out, (n, self.d_out), "out", name)
        if (offsets is None) == (experts is None):
            raise SpecError(
                f"{name}: expected offsets (sorted rows) or experts (a router's choice), got "
                f"{'neither' if offsets is None else 'both'}. Pass exactly one of them."
            )
        if offsets is not None:
            offsets = self._offsets(offsets, n, name)
        top_k = 1
        if experts is not None:
            experts = self._ids(experts, n, name)
            top_k = experts.shape[1]
        if share is not None:
            share = self._fit(share, (n, top_k), "share", name)
        return x, y, experts, offsets, share

    def _offsets(self, offsets: Any, n: int, where: str) -> Array:
        whole = _whole_numbers(offsets, (self.n_experts + 1,), "offsets", where)
        whole = contiguous(whole, np.dtype(np.int64))
        falls = bool(np.any(np.diff(whole) < 0))
        if whole[0] != 0 or whole[-1] != n or falls:
            raise DataError(
                f"{where}: expected offsets that rise from 0 to the {n} rows of x, got "
                f"{whole[0]} … {whole[-1]}{', falling' if falls else ''}. Pass the cumulative sum "
                f"of the experts' row counts, after a 0."
            )
        return whole

    def _ids(self, experts: Any, n: int, where: str) -> Array:
        top_k = shape_of(experts)[1] if len(shape_of(experts)) == 2 else 1
        whole = _whole_numbers(experts, (n, max(top_k, 1)), "experts", where)
        if whole.size and (whole.min() < 0 or whole.max() >= self.n_experts):
            raise DataError(
                f"{where}: expected experts 0 to {self.n_experts - 1}, got {whole.min()} to "
                f"{whole.max()}. Number the experts from 0; to leave one out, give it the share 0."
            )
        return contiguous(whole, np.dtype(np.int32))


class GroupedLinear(Experts):
    """One layer an expert: ``phi(x W[e]^T + b[e])``, or gated.

    Parameters
    ----------
    n_experts, d_in, d_out : int, at least 1
    activation : str, default "identity"
        One of the activations' names; fused with the product.
    gated : bool, default False
    dtype, precision, on_host
        See `Experts`.

    Examples
    --------
    >>> import numpy as np
    >>> from lamina.core.grouped import ExpertWeights, GroupedLinear
    >>> linear = GroupedLinear(n_experts=2, d_in=3, d_out=1)
    >>> pack = linear.pack([ExpertWeights(np.array([[[1, 1, 1]], [[10, 10, 10]]]))])
    >>> linear(pack, np.eye(3), offsets=[0, 2, 3]).ravel().tolist()
    [1.0, 1.0, 10.0]
    >>> linear(pack, np.eye(3), experts=[[0, 1]] * 3, share=[[0.5, 0.5]] * 3).ravel().tolist()
    [5.5, 5.5, 5.5]
    """

    def __init__(
        self,
        n_experts: int,
        d_in: int,
        d_out: int,
        *,
        activation: str = "identity",
        gated: bool = False,
        dtype: str = "float32",
        precision: str | None = None,
        on_host: bool = False,
    ) -> None:
        layers = [(d_out, activation, gated)]
        super().__init__(n_experts, d_in, layers, dtype=dtype, precision=precision, on_host=on_host)


class ExpertFeedForward(Experts):
    """The experts of a Transformer's mixture: up, activation (perhaps gated), down.

    Parameters
    ----------
    n_experts, d_model, d_ff : int, at least 1
    activation : str, default "gelu"
    gated : bool, default False
        True: SwiGLU with activation "silu", GEGLU with "gelu" (Shazeer 2020, arXiv:2002.05202).
    dtype, precision, on_host
        See `Experts`.

    Notes
    -----
    Forward costs 4 n top_k d_model d_ff floating point operations (6 when gated), backward twice
    that. Weights: ``[ExpertWeights(w_up, b_up, w_gate, b_gate), ExpertWeights(w_down, b_down)]``.

    Examples
    --------
    >>> import numpy as np
    >>> from lamina.core.grouped import ExpertFeedForward, ExpertWeights
    >>> rng = np.random.default_rng(0)
    >>> ffn = ExpertFeedForward(n_experts=4, d_model=8, d_ff=16, activation="silu", gated=True)
    >>> up, gate = rng.normal(size=(2, 4, 16, 8))
    >>> weights = [ExpertWeights(up, gate=gate), ExpertWeights(rng.normal(size=(4, 8, 16)))]
    >>> x, experts = rng.normal(size=(5, 8)), rng.integers(0, 4, (5, 2))
    >>> y, passed = ffn.forward(weights, x, experts=experts, share=np.full((5, 2), 0.5))
    >>> gradients = ffn.backward(passed, np.ones_like(y))
    >>> gradients.x.shape, gradients.share.shape, gradients.weights[1].weight.shape
    ((5, 8), (5, 2), (4, 8, 16))
    """

    def __init__(
        self,
        n_experts: int,
        d_model: int,
        d_ff: int,
        *,
        activation: str = "gelu",
        gated: bool = False,
        dtype: str = "float32",
        precision: str | None = None,
        on_host: bool = False,
    ) -> None:
        layers = [(d_ff, activation, gated), (d_model, "identity", False)]
        super().__init__(
            n_experts, d_model, layers, dtype=dtype, precision=precision, on_host=on_host
        )


def _whole_numbers(a: Any, shape: tuple[int, ...], name: str, where: str) -> Array:
    if shape_of(a) != shape:
        raise ShapeError(
            f"{where}: expected {name} of shape {shape}, got {shape_of(a)}. "
            f"Pass an integer array of that shape."
        )
    whole: Array = np.asarray(a)
    if whole.size and whole.dtype.kind not in "iu":
        raise DataError(
            f"{where}: expected {name} as integers, got dtype {whole.dtype}. "
            f"Convert them with .astype(int)."
        )
    return whole


def _zeros(like: ExpertWeights) -> ExpertWeights:
    """Zeros of these shapes; large ones are pages that cost nothing until they are written."""
    return ExpertWeights(*(None if a is None else np.zeros(a.shape, a.dtype) for a in like))  # type: ignore[arg-type]


def _kind(a: Any) -> str:
    if not isinstance(a, np.ndarray):
        return f"an object of type {type(a).__name__}"
    order = "" if a.flags.c_contiguous else ", not C-contiguous"
    return f"{a.dtype} of shape {a.shape}{order}{'' if a.flags.writeable else ', read-only'}"
