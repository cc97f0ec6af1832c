"""What a linear unit cannot do, what a network can, as proofs that run.

Public names are looked up when first used: each proof imports only what it needs.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from lamina.late import look_up

# The public names and the modules that hold them, in the order of docs/theory.md.
_HOME: dict[str, str] = {
    "separability": "lamina.theory.linear_separability",
    "Separability": "lamina.theory.certificate",
    "separability_by_class": "lamina.theory.classes",
    "perceptron": "lamina.theory.perceptron_rule",
    "orbit": "lamina.theory.groups",
    "invariant_separability": "lamina.theory.invariance",
    "autocorrelation": "lamina.theory.invariance",
    "translation_patterns": "lamina.theory.patterns",
    "translation_network": "lamina.theory.patterns",
    "circuit": "lamina.theory.circuits",
    "Circuit": "lamina.theory.circuits",
    "Verification": "lamina.theory.circuit_check",
    "adder": "lamina.theory.known_circuits",
    "comparator": "lamina.theory.known_circuits",
    "majority": "lamina.theory.known_circuits",
    "parity": "lamina.theory.known_circuits",
    "is_threshold_function": "lamina.theory.threshold_function",
    "minimal_circuit": "lamina.theory.minimal",
    "boolean_function": "lamina.theory.read_back",
    "collapse": "lamina.theory.folding",
    "collapse_report": "lamina.theory.folding",
    "regions_in_window": "lamina.theory.linear_regions",
    "regions_on_line": "lamina.theory.linear_regions",
    "region_bounds": "lamina.theory.region_bounds",
    "activations": "lamina.theory.activation_gallery",
    "learned_features": "lamina.theory.feature_layers",
    "decision_boundary": "lamina.theory.decision_boundaries",
    "hidden_space": "lamina.theory.hidden_spaces",
    "network_diagram": "lamina.theory.pictures",
    "weights_as_images": "lamina.theory.pictures",
    "maximise_activation": "lamina.theory.maximise",
    "diagnose": "lamina.theory.diagnosis",
    "LiveDiagnosis": "lamina.theory.live_diagnosis",
    # formulas, and the feature maps made of them
    "parse_expression": "lamina.theory.expression",
    "Expression": "lamina.theory.expression",
    "feature_map": "lamina.theory.feature_maps",
    "polynomial_map": "lamina.theory.feature_maps",
    "FeatureMap": "lamina.theory.feature_maps",
    # universal approximation, and what networks are proved to be near
    "approximate": "lamina.theory.approximation",
    "Approximation": "lamina.theory.approximation",
    "certify_error": "lamina.theory.certify",
    "Certificate": "lamina.theory.certify",
    "learned_against": "lamina.theory.learned",
    "polynomial_distance": "lamina.theory.polynomial",
    "PolynomialDistance": "lamina.theory.polynomial",
    "sawtooth": "lamina.theory.sawtooth",
    "Sawtooth": "lamina.theory.sawtooth",
}

__all__ = [*_HOME]  # noqa: PLE0604 (all are strings)


class _Room(ModuleType):
    """A package whose public names stay what they are when a module of the same name is imported.

    Python sets ``theory.feature_map`` to the module lamina.theory.feature_map once that is
    imported; the function of that name, if it is public, would be lost.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Room


def __getattr__(name: str) -> Any:
    return look_up(__name__, _HOME, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
