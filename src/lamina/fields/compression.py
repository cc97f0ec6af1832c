"""Compression of a field: its weights in steps, tuned to the signal while they are rounded."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, TypeVar

from lamina.core.checks import check_count, check_number
from lamina.core.errors import SpecError
from lamina.fields import tuning
from lamina.fields.field import Field
from lamina.fields.fit import FitProgress
from lamina.fields.quantised import Quantised
from lamina.fields.steps import StepChooser

AnyField = TypeVar("AnyField", bound=Field)

DEFAULT_BITS: Final = 4.0
LEAST_BITS, MOST_BITS = 0.05, 12.0
DEFAULT_SECONDS: Final = 5.0


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
    kind = _kind_of(field)
    chooser = StepChooser(field._tensors(), kind.squared_derivatives(field), most)
    theta = field._weights()
    weights = chooser.exact(theta)
    score: Callable[[Quantised], float | None] = _unknown
    if signal is not None:
        under_way = kind.Tuning(field, signal, chooser, progress, **options)
        tuned = chooser.exact(tuned_theta := under_way.go(seconds, steps))
        score = under_way.score
        if under_way.score(tuned) > under_way.score(weights):
            theta, weights = tuned_theta, tuned
    result = _of(field, weights, score(weights))
    while n_bytes is not None and (excess := result.n_file_bytes - n_bytes) > 0:
        chooser.n_bytes -= excess
        weights = chooser.exact(theta)
        result = _of(field, weights, score(weights))
    return result


def _kind_of(field: Field) -> Any:
    """Return the module that measures and tunes such a field's weights."""
    if field.ROLE != "radiance_field":
        return tuning
    from lamina.fields import scene_tuning

    return scene_tuning


def _check_field(field: object, where: str) -> None:
    if not isinstance(field, Field):
        raise SpecError(f"{where}: expected a field, got {type(field).__name__}. Pass a field.")
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
    n_tensors = len(field._tensors())
    return field.n_file_bytes - field.n_coded_bytes + (field.coding is None) * (40 + 28 * n_tensors)


def _of(field: AnyField, weights: Quantised, psnr: float | None) -> AnyField:
    """Return a copy of a field with other weights."""
    result = copy.copy(field)
    result._set_weights(weights.theta(field._tensors()))
    result._coding = weights
    result._report = field.report if psnr is None else replace(field.report, psnr=psnr)
    return result
