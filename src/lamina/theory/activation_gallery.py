"""The gallery of activations: what each is, where it saturates, what it costs here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lamina.core.checks import check_choice
from lamina.core.errors import SpecError
from lamina.core.functions import ACTIVATIONS
from lamina.theory import activation_cost
from lamina.theory.activation_cost import Cost
from lamina.theory.activation_facts import FACTS, FLAT, ActivationFacts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SMOOTHNESS = {-1.0: "jump", 0.0: "kink", 1.0: "once", math.inf: "yes"}


@dataclass(frozen=True, repr=False)
class ActivationEntry:
    """An activation in the gallery.

    Attributes
    ----------
    facts : ActivationFacts
        Formula, derivative, range and the like.
    cost : Cost or None
        Nanoseconds an element beyond an identity's, on one thread of this machine, if measured.
    """

    facts: ActivationFacts
    cost: Cost | None

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON types; what is infinite is the text "inf" or "-inf"."""
        f = self.facts
        return {
            "name": f.name,
            "formula": f.formula,
            "derivative": f.derivative_formula,
            "range": [_json(end) for end in f.range],
            "range_closed": list(f.range_closed),
            "flat_below": f.flat_below,
            "flat_above": f.flat_above,
            "zero_centred": f.zero_centred,
            "mean_for_normal_z": f.mean,
            "odd": f.odd,
            "smooth": f.smooth,
            "continuous_derivatives": _json(f.smoothness),
            "monotone": f.monotone,
            "lipschitz": _json(f.lipschitz),
            "first_weights": f.scheme,
            "used_in": f.used_in,
            "reference": f.reference,
            "ns_forward": None if self.cost is None else self.cost.forward,
            "ns_forward_and_backward": None if self.cost is None else self.cost.backward,
        }

    def __str__(self) -> str:
        f = self.facts
        pairs = [
            ("phi(z)", f.formula),
            ("phi'(z)", f.derivative_formula),
            ("range", _interval(f)),
            ("saturates", _saturates(f)),
            ("zero-centred", f"{_yes(f.zero_centred)} (mean {f.mean:.3g} for standard normal z)"),
            ("smooth", _smooth(f)),
            ("monotone", _yes(f.monotone)),
            ("Lipschitz", f"{f.lipschitz:.4g}" if f.lipschitz < math.inf else "no bound"),
            ("first weights", f.scheme),
            ("used in", f.used_in),
            ("source", f.reference),
        ]
        if self.cost is not None:
            both = f"{self.cost.forward:.2f} ns forward, {self.cost.backward:.2f} with backward"
            pairs.append(("cost", f"{both}, an element"))
        return "\n".join([f.name, *(f"  {name:<13} {text}" for name, text in pairs)])

    __repr__ = __str__

    def plot(self) -> Figure:
        """Return a figure of phi and phi', the flat parts shaded (needs matplotlib)."""
        from lamina.plots.activations import plot_activation

        f = self.facts
        z = _axis(f)
        flat = (f.flat_below, f.flat_above)
        return plot_activation(f.name, z, f.value(z), f.derivative(z), flat=flat)


class ActivationGallery(Mapping[str, ActivationEntry]):
    """Activations by name, in the order of `lamina.core.functions.ACTIVATIONS`.

    Print it for a table; ``gallery["relu"]`` is one entry.
    """

    def __init__(self, entries: Iterable[ActivationEntry]) -> None:
        self._entries = {entry.facts.name: entry for entry in entries}

    def __getitem__(self, name: str) -> ActivationEntry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def to_dict(self) -> dict[str, Any]:
        """Return every entry's `to_dict`, by name."""
        return {name: entry.to_dict() for name, entry in self._entries.items()}

    def plot(self) -> Figure:
        """Return one figure with a small picture of each (needs matplotlib)."""
        from lamina.plots.activations import plot_activations

        z = np.linspace(-5.0, 5.0, 501)
        facts = [entry.facts for entry in self.values()]
        return plot_activations(
            list(self), z, [f.value(z) for f in facts], [f.derivative(z) for f in facts]
        )

    def __str__(self) -> str:
        head = ["activation", "range", "saturates", "centred", "smooth", "monotone", "Lipschitz"]
        measured = any(entry.cost is not None for entry in self.values())
        head += ["forward ns", "both ns"] if measured else []
        rows = [head, *(_row(entry, measured) for entry in self.values())]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = [
            "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        lines += [
            "",
            f"saturates: |phi'(z)| < {FLAT} for all z beyond",
            "centred: mean 0 for standard normal z",
        ]
        if measured:
            lines.append("ns: an element, beyond an identity's; one thread, float32, this machine")
        return "\n".join(lines)

    __repr__ = __str__


def activations(
    names: str | Iterable[str] | None = None, *, measure_cost: bool = True
) -> ActivationGallery:
    """Return what is known about each activation, and what it costs on this machine.

    Parameters
    ----------
    names : str or iterable of str, optional
        Which; None means all that ``lamina.Network`` has.
    measure_cost : bool, default True
        Time them through the engine, which takes about a third of a second for all; False where
        only the facts are wanted.

    Returns
    -------
    ActivationGallery
        A mapping of name to entry; printable, with ``to_dict()`` and ``plot()``.

    Raises
    ------
    SpecError
        A name is not one of an activation.

    Notes
    -----
    Costs are differences between a network of one hidden layer with the activation and the same
    network with an identity: what the engine's vector kernels need beyond storing z.

    Examples
    --------
    >>> from lamina import theory
    >>> gallery = theory.activations(measure_cost=False)
    >>> len(gallery)
    14
    >>> gallery["sigmoid"].facts.lipschitz, gallery["tanh"].facts.zero_centred
    (0.25, True)
    """
    if names is None:
        chosen = list(ACTIVATIONS)
    else:
        given = [names] if isinstance(names, str) else list(names) if _several(names) else []
        if not given:
            raise SpecError(
                f"activations: expected names of activations, got {names!r}. Pass for example "
                "'relu', or None for all."
            )
        chosen = [check_choice(n, ACTIVATIONS, "each name", "activations") for n in given]
    costs = activation_cost.measure(chosen) if measure_cost else {}
    known = {facts.name: facts for facts in FACTS}
    return ActivationGallery(ActivationEntry(known[name], costs.get(name)) for name in chosen)


def _several(names: object) -> bool:
    return isinstance(names, Iterable)


# --- words ------------------------------------------------------------------------------------


def _row(entry: ActivationEntry, measured: bool) -> list[str]:
    f = entry.facts
    row = [
        f.name,
        _interval(f),
        _saturates(f),
        _yes(f.zero_centred),
        _SMOOTHNESS[f.smoothness],
        _yes(f.monotone),
        f"{f.lipschitz:.4g}",
    ]
    if measured:
        row += ["", ""] if entry.cost is None else [f"{c:.2f}" for c in vars(entry.cost).values()]
    return row


def _interval(f: ActivationFacts) -> str:
    left = "[" if f.range_closed[0] else "("
    right = "]" if f.range_closed[1] else ")"
    return f"{left}{f.range[0]:.4g}, {f.range[1]:.4g}{right}"


def _saturates(f: ActivationFacts) -> str:
    if f.flat_below is not None and f.flat_below == f.flat_above:
        return "everywhere"
    parts = [] if f.flat_below is None else [f"z < {f.flat_below:.3g}"]
    parts += [] if f.flat_above is None else [f"z > {f.flat_above:.3g}"]
    return ", ".join(parts) or "nowhere"


def _smooth(f: ActivationFacts) -> str:
    return {
        -1.0: "no: it jumps at 0",
        0.0: "no: it has a kink at 0",
        1.0: "once: its second derivative jumps at 0",
        math.inf: "yes, all derivatives exist",
    }[f.smoothness]


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"


def _json(number: float) -> float | str:
    return number if math.isfinite(number) else f"{number:g}"


def _axis(f: ActivationFacts) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return values of z that show all there is to see, 0 not twice."""
    ends = [abs(end) for end in (f.flat_below, f.flat_above) if end is not None]
    reach = max(5.0, 1.25 * max(ends, default=0.0))
    return np.linspace(-reach, reach, 1201)
