"""The gallery of activations: every fact against the formulas, evaluated to 30 digits by mpmath."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
from tests.tolerances import assert_close, rounding

from lamina import theory
from lamina.core.errors import SpecError
from lamina.core.functions import ACTIVATIONS
from lamina.core.initialize import SCHEMES
from lamina.theory.activation_facts import FACTS, FLAT, ActivationFacts

GRID = np.linspace(-40.0, 40.0, 8001)
NEAR = np.linspace(-8.0, 8.0, 641)
NAMES: dict[str, Any] = {
    "exp": mpmath.exp,
    "log": mpmath.log,
    "tanh": mpmath.tanh,
    "sin": mpmath.sin,
    "cos": mpmath.cos,
    "sqrt": mpmath.sqrt,
    "pi": mpmath.pi,
    "Phi": mpmath.ncdf,
    "pdf": mpmath.npdf,
}
all_facts = pytest.mark.parametrize("facts", FACTS, ids=lambda f: f.name)


@pytest.fixture(autouse=True)
def _digits() -> Any:
    with mpmath.workdps(30):
        yield


def read(formula: str) -> Callable[[Any], Any]:
    """What is printed, as a function of z."""
    code = compile(formula, "formula", "eval")
    return lambda z: mpmath.mpf(1) * eval(code, {"__builtins__": {}}, {**NAMES, "z": z})


def test_every_activation_of_the_engine_is_in_the_gallery_in_order() -> None:
    assert list(theory.activations(measure_cost=False)) == list(ACTIVATIONS)


@all_facts
def test_the_printed_formulas_give_what_the_engine_computes(facts: ActivationFacts) -> None:
    phi, slope = read(facts.formula), read(facts.derivative_formula)
    for formula, ours in ((phi, facts.value), (slope, facts.derivative)):
        wanted = np.array([float(formula(mpmath.mpf(float(z)))) for z in NEAR])
        if not wanted.any():
            assert not ours(NEAR).any()
            continue
        assert_close(ours(NEAR), wanted, rounding(np.float64, 8))


@all_facts
def test_the_derivative_is_that_of_the_formula(facts: ActivationFacts) -> None:
    phi, slope = read(facts.formula), read(facts.derivative_formula)
    for z in (-3.0, -1.3, -0.2, 0.3, 1.1, 2.9):
        assert abs(mpmath.diff(phi, z) - slope(mpmath.mpf(z))) < 1e-12


@all_facts
def test_the_range_holds_all_values_and_is_no_wider(facts: ActivationFacts) -> None:
    phi = read(facts.formula)
    values = [phi(mpmath.mpf(float(z))) for z in np.concatenate([NEAR, [-30.0, 30.0]])]
    best = {0: min(values), 1: max(values)}
    for end in (0, 1):
        bound, sign = facts.range[end], 1 - 2 * end
        if np.isinf(bound):
            assert abs(phi(mpmath.mpf(-sign * 1e6))) > 1e3
        elif facts.range_closed[end]:
            assert all(sign * (v - bound) > -1e-15 for v in values)
            assert abs(sign * _least(lambda z, s=sign: s * phi(z)) - bound) < 1e-15
        else:
            assert all(sign * (v - bound) > -1e-15 for v in values)
            assert sign * (best[end] - bound) < 1e-12


def _least(f: Callable[[Any], Any]) -> Any:
    """The least value of f around the grid's best point, by golden section."""
    start = mpmath.mpf(float(min(NEAR, key=lambda z: f(mpmath.mpf(float(z))))))
    low, high = start - 0.03, start + 0.03
    ratio = (mpmath.sqrt(5) - 1) / 2
    for _ in range(90):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if f(a) <= f(b) else (a, high)
    return min(f(low), f(high), f(start))


@all_facts
def test_it_saturates_where_the_gallery_says(facts: ActivationFacts) -> None:
    size = np.abs(facts.derivative(GRID))
    for edge, beyond, sign in (
        (facts.flat_below, (facts.flat_below or 0.0) > GRID, -1),
        (facts.flat_above, (facts.flat_above or 0.0) < GRID, 1),
    ):
        if edge is None:  # the slope comes back to at least FLAT, however far one goes
            tail = size[GRID > 30.0] if sign > 0 else size[GRID < -30.0]
            assert tail.max() >= FLAT
            continue
        assert size[beyond].max() < FLAT
        if facts.name != "step":
            inside = abs(read(facts.derivative_formula)(mpmath.mpf(edge) - sign * 1e-6))
            assert inside >= FLAT * (1 - 1e-4)


@all_facts
def test_it_is_centred_odd_and_monotone_where_the_gallery_says(facts: ActivationFacts) -> None:
    phi = read(facts.formula)
    mean = mpmath.quad(lambda z: phi(z) * mpmath.npdf(z), [-14, 0, 14])
    assert abs(mean - facts.mean) < 1e-7
    assert facts.zero_centred == (abs(mean) < 1e-9)
    odd = np.abs(facts.value(-GRID) + facts.value(GRID)).max() < 1e-12
    assert facts.odd == odd
    assert facts.monotone == bool((np.diff(facts.value(GRID)) >= 0.0).all())


@all_facts
def test_it_is_as_smooth_at_zero_as_the_gallery_says(facts: ActivationFacts) -> None:
    phi = read(facts.formula)
    steps = (mpmath.mpf(10) ** -6, -(mpmath.mpf(10) ** -6))
    for order in range(4):
        right, left = (mpmath.diff(phi, h, order) if order else phi(h) for h in steps)
        agree = abs(right - left) < 1e-4
        assert agree == (order <= facts.smoothness)
        if not agree:
            break
    assert facts.smooth == (facts.smoothness > 3)


@all_facts
def test_the_lipschitz_constant_is_the_steepest_chord(facts: ActivationFacts) -> None:
    z = np.linspace(-40.0, 40.0, 80_001)
    chords = np.abs(np.diff(facts.value(z))) / np.diff(z)
    if np.isinf(facts.lipschitz):  # chords grow with a finer grid, or with a wider one
        narrow = facts.value(np.array([-1e-9, 1e-9]))
        wide = facts.value(np.array([1e9, 1e9 + 1]))
        assert max(np.ptp(narrow) / 2e-9, np.ptp(wide)) > 1e8
        return
    assert chords.max() <= facts.lipschitz * (1 + 1e-9)
    assert chords.max() >= facts.lipschitz * (1 - 1e-3)


@all_facts
def test_it_says_where_it_is_used_and_how_weights_are_drawn(facts: ActivationFacts) -> None:
    assert facts.scheme in SCHEMES
    assert facts.used_in
    assert facts.reference


def test_costs_are_measured_and_orders_hold() -> None:
    gallery = theory.activations()
    cost = {name: entry.cost for name, entry in gallery.items()}
    assert all(c is not None and c.forward >= 0 and c.backward >= 0 for c in cost.values())
    assert cost["identity"].forward < 0.05  # against itself
    assert cost["softplus"].forward > cost["relu"].forward  # exp and log against a maximum
    assert cost["softplus"].forward < 100.0


def test_the_gallery_prints_a_table_and_gives_json() -> None:
    gallery = theory.activations(measure_cost=False)
    lines = str(gallery).splitlines()
    assert [line.split()[0] for line in lines[1:15]] == list(ACTIVATIONS)
    assert "forward ns" not in lines[0]
    assert "[-0.17, inf)" in str(gallery["gelu"])
    facts = json.loads(json.dumps(gallery.to_dict(), allow_nan=False))
    assert facts["step"]["lipschitz"] == "inf"
    assert facts["tanh"]["zero_centred"] is True
    assert facts["tanh"]["ns_forward"] is None
    assert list(theory.activations("relu", measure_cost=False)) == ["relu"]
    with pytest.raises(SpecError, match="activations: expected each name to be one of identity"):
        theory.activations(["relu", "swish"])
    for nothing in ([], 3):
        with pytest.raises(SpecError, match="activations: expected names of activations, got"):
            theory.activations(nothing)


def test_a_module_of_the_name_of_a_public_function_does_not_replace_it() -> None:
    from types import ModuleType

    function = theory.activations
    theory.activations = ModuleType("activations")  # what importing a module of that name does
    assert theory.activations is function
    theory.something = ModuleType("something")
    assert isinstance(theory.something, ModuleType)
    del theory.something
