"""How large encode makes a file: bits a pixel or bits a weight, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from lamina.cli.kinds import Loaded

# Of a file of pictures: with fewer bits a larger network fits, with more its weights are better;
# 3 and 5.5 are 0.1 to 0.7 dB worse at 1/4, 1 and 2 bits a pixel (benchmarks/fields_rate.py)
BITS_PER_WEIGHT: Final = 4.25
OTHER_BYTES: Final = 1400  # of a file, about: the header
LEAST_PARAMS: Final = 400
TUNING: Final = 0.25  # of the time or steps, and of the steps of a fit beside them


@dataclass(frozen=True)
class Rate:
    """What was asked for.

    Attributes
    ----------
    bits_per_weight : float, optional
    n_bytes : int, optional
        Of the file at most.
    n_params : int, optional
        Of the network that suits n_bytes.
    """

    bits_per_weight: float | None
    n_bytes: int | None
    n_params: int | None

    @classmethod
    def of(cls, loaded: Loaded, bpp: float | None, bits_per_weight: float | None) -> Rate | None:
        """Return what two options ask for; None where neither is given."""
        from lamina.core.errors import DataError

        if bpp is None:
            return None if bits_per_weight is None else cls(bits_per_weight, None, None)
        height, width = loaded.facts["shape"][:2]
        n_bytes = int(bpp * height * width / 8)
        each = BITS_PER_WEIGHT if bits_per_weight is None else bits_per_weight
        n_params = int(8 * (n_bytes - OTHER_BYTES) / each)
        if n_params < LEAST_PARAMS:
            least = 8 * (OTHER_BYTES + LEAST_PARAMS * each / 8) / (height * width)
            raise DataError(
                f"encode: expected --bpp of at least {least:.2g} with {width} x {height} pixels, "
                f"got {bpp:g}: a file has some {OTHER_BYTES:,} bytes beside the weights. "
                "Raise it."
            )
        n_values = 1
        for size in loaded.facts["shape"]:
            n_values *= size
        return cls(None, n_bytes, min(n_params, n_values))

    def limits(
        self, seconds: float | None, steps: int | None, default: float
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the limits of the fit and of tuning, whose seconds are a part of the whole.

        `default` is the seconds of a field's fit where neither is given.
        """
        if seconds is None and steps is None:
            seconds = default
        fit = {"max_seconds": seconds and seconds * (1 - TUNING), "max_steps": steps}
        tune = {
            "max_seconds": seconds and seconds * TUNING,
            "max_steps": steps and max(1, int(steps * TUNING)),
        }
        return fit, tune

    def apply(self, field: Any, loaded: Loaded, tune: dict[str, Any], progress: Any) -> Any:
        """Return the field compressed; not tuned where Ctrl-C ended the fit."""
        from lamina.fields import compress

        size: dict[str, Any] = {"bits_per_weight": self.bits_per_weight, "n_bytes": self.n_bytes}
        if field.report.stopped == "interrupted":
            return compress(field, **size)
        options = {
            name: loaded.options[name] for name in ("rate", "signs") if name in loaded.options
        }
        return compress(field, signal=loaded.signal, progress=progress, **size, **tune, **options)


def rates(field: Any, n_bytes: int) -> dict[str, tuple[float, str]]:
    """Return what a file of so many bytes comes to, name to value and text."""
    found: dict[str, tuple[float, str]] = {}
    kind = type(field).__name__
    if field.coding is not None:
        bits = field.bits_per_weight
        found["bits_per_weight"] = bits, f"{bits:.2f} bits a weight"
    if kind == "ImageField":
        value = 8 * n_bytes / (field.form.height * field.form.width)
        found["bits_per_pixel"] = value, f"{value:.3g} bits a pixel"
    if kind == "AudioField":
        value = 8e-3 * n_bytes * field.rate / field.form.n_samples
        found["kilobits_per_second"] = value, f"{value:.4g} kbit/s"
    return found
