"""How many linear regions a network can have at most, and how many some network has at least."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lamina.core.checks import check_choice, check_count
from lamina.core.errors import SpecError
from lamina.core.spec import NetworkSpec
from lamina.theory.exact_network import PIECEWISE_LINEAR


@dataclass(frozen=True)
class RegionBound:
    """A bound, and where it comes from."""

    value: int
    kind: str  # "upper" or "lower"
    source: str


def region_bounds(spec: NetworkSpec, dimension: int) -> list[RegionBound]:
    """Return bounds on the linear regions of networks of an architecture.

    Parameters
    ----------
    spec : NetworkSpec
        Of relu, leaky_relu, step and identity units; identity units bend nothing.
    dimension : int
        Of the piece of the input space that is looked at: 1 for a line, 2 for a plane.

    Returns
    -------
    list of RegionBound
        Upper bounds for every network of the architecture, from the loosest to the tightest; a
        lower bound on the most that one can have.

    Raises
    ------
    SpecError
        ``spec`` or ``dimension`` is not as described.

    References
    ----------
    Zaslavsky (1975), "Facing up to arrangements" (n lines in general position); Montúfar et al.
    (2014), arXiv:1402.1869; Montúfar (2017), "Notes on the number of linear regions of deep
    neural networks"; Serra, Tjandraatmadja and Ramalingam (2018), arXiv:1711.02114, theorem 1.
    """
    where = "region_bounds"
    if not isinstance(spec, NetworkSpec):
        raise SpecError(
            f"{where}: expected a NetworkSpec, got a {type(spec).__name__}. Pass net.spec."
        )
    for name in spec.activations:
        check_choice(name, PIECEWISE_LINEAR, "each activation", where)
    check_count(dimension, "dimension", where)
    kinds = [*spec.activations, *(["step"] if spec.output == "step" else [])]
    widths = [*spec.widths, *([spec.d_out] if spec.output == "step" else [])]
    bending = [w for w, kind in zip(widths, kinds, strict=True) if kind != "identity"]
    return _tightest(_all_bounds(spec, widths, kinds, bending, min(dimension, spec.d_in)))


def _tightest(bounds: list[RegionBound]) -> list[RegionBound]:
    """Leave out upper bounds that are no lower than the one before."""
    kept: list[RegionBound] = []
    for bound in bounds:
        if bound.kind == "lower" or not kept or bound.value < kept[-1].value:
            kept.append(bound)
    return kept


def _all_bounds(
    spec: NetworkSpec, widths: list[int], kinds: list[str], bending: list[int], d: int
) -> list[RegionBound]:
    bounds = [RegionBound(2 ** sum(bending), "upper", "one for each on-off pattern of the units")]
    every_layer = math.prod(_arrangement(n, d) for n in bending)
    if len(bending) <= 1:
        bounds.append(RegionBound(every_layer, "upper", "Zaslavsky 1975: n hyperplanes"))
        return bounds
    bounds.append(RegionBound(every_layer, "upper", "each layer's hyperplanes cut each region"))
    if not spec.skips and not spec.residual:
        narrow, product = d, 1
        for w, kind in zip(widths, kinds, strict=True):
            product *= 1 if kind == "identity" else _arrangement(w, narrow)
            narrow = min(narrow, w)
        bounds.append(
            RegionBound(product, "upper", "Montúfar 2017: narrow layers cut fewer dimensions")
        )
        if set(kinds) <= {"relu"}:
            bounds.append(
                RegionBound(
                    _serra(widths, d), "upper", "Serra et al. 2018, arXiv:1711.02114, theorem 1"
                )
            )
            if min(widths) >= d:
                value = math.prod((w // d) ** d for w in widths[:-1]) * _arrangement(widths[-1], d)
                bounds.append(
                    RegionBound(
                        value,
                        "lower",
                        "Montúfar et al. 2014, arXiv:1402.1869: some network of "
                        "these widths has as many",
                    )
                )
    return bounds


def _arrangement(n: int, d: int) -> int:
    """Regions of n hyperplanes in general position in d dimensions."""
    return sum(math.comb(n, j) for j in range(min(n, d) + 1))


def _serra(widths: list[int], d: int) -> int:
    """Sum of prod C(n_l, j_l) over j_l <= min(d, n_1 - j_1, …, n_{l-1} - j_{l-1}, n_l)."""
    ways = {d: 1}  # the dimension that is left -> the sum so far
    for n in widths:
        after: dict[int, int] = {}
        for left, count in ways.items():
            for j in range(min(left, n) + 1):
                rest = min(left, n - j)
                after[rest] = after.get(rest, 0) + count * math.comb(n, j)
        ways = after
    return sum(ways.values())
