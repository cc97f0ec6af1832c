"""Fitted estimators as the specification and arrays of a model file, and back."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.preprocessing import LabelBinarizer

from lamina.core.errors import ModelFileError, SpecError
from lamina.tabular.coefficients import Array, Coefficients, network_spec
from lamina.tabular.objective import OUTPUT_UNITS

_COUNTS = ("n_iter_", "t_", "n_outputs_", "n_layers_", "n_features_in_")
_FLOATS = ("loss_", "best_loss_", "best_validation_score_")
_CURVES = ("loss_curve_", "validation_scores_")
_Y_TYPES = ("binary", "multiclass", "multilabel-indicator")


def to_parts(est: Any) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the specification and the arrays of a fitted estimator."""
    held = est._coefficients
    arrays = {"theta": held.theta}
    for name in (*_FLOATS, *_CURVES):  # as arrays, since they may be infinite or NaN
        value = getattr(est, name, None)
        if value is not None:
            arrays[name] = np.asarray(value, np.float64)
    spec: dict[str, Any] = {
        "parameters": {k: _encode(k, v) for k, v in est.get_params(deep=False).items()},
        "dims": list(held.dims),
        "out_activation_": est.out_activation_,
        **{name: int(getattr(est, name)) for name in _COUNTS},
    }
    if hasattr(est, "feature_names_in_"):
        spec["feature_names_in_"] = [str(name) for name in est.feature_names_in_]
    if hasattr(est, "classes_"):
        binarizer = est._label_binarizer
        spec["classes"] = {
            "dtype": est.classes_.dtype.str if est.classes_.dtype != object else "object",
            "labels": [_plain(label) for label in est.classes_],
            "y_type": binarizer.y_type_,
            "sparse": bool(binarizer.sparse_input_),
        }
    return spec, arrays


def from_parts(kind: Any, spec: dict[str, Any], arrays: dict[str, Array]) -> Any:
    """Return the estimator that `to_parts` took apart.

    Parameters
    ----------
    kind : type
        MLPClassifier or MLPRegressor.
    spec : dict
    arrays : dict of str to ndarray
        Both from a file that nobody vouches for.

    Raises
    ------
    ModelFileError
        They do not describe an estimator.
    """
    try:
        est = kind(**{k: _decode(k, v) for k, v in spec["parameters"].items()})
        est._validate_params()
        dims = tuple(_whole(d, 1) for d in spec["dims"])
        theta = arrays["theta"]
        out = spec["out_activation_"]
        expected = network_spec(
            dims, est._activations(len(dims) - 2), OUTPUT_UNITS[out], theta.dtype
        )
        _require(theta.shape == (expected.n_params,), "as many parameters as its layers have")
        est._coefficients = Coefficients(theta, dims)
        est.out_activation_ = out
        for name in _COUNTS:
            setattr(est, name, _whole(spec[name], 0))
        _require(est.n_features_in_ == dims[0], "as many features as inputs")
        _require(est.n_outputs_ == dims[-1], "as many outputs as the last layer has")
        for name in (*_FLOATS, *_CURVES):
            setattr(est, name, _record(arrays.get(name), 0 if name in _FLOATS else 1))
        if est.loss_curve_ is None:
            del est.loss_curve_
        est._no_improvement_count = 0
        if "feature_names_in_" in spec:
            features = np.array([_text(n) for n in spec["feature_names_in_"]], dtype=object)
            _require(len(features) == dims[0], "one name a feature")
            est.feature_names_in_ = features
        if kind._role == "mlp_classifier":
            _restore_classes(est, spec["classes"])
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ModelFileError(
            f"load: expected the description of a fitted {kind.__name__}, got "
            f"{type(error).__name__}: {str(error)[:200]}. "
            "Save the estimator again, or restore the file from a backup."
        ) from error
    return est


def _restore_classes(est: Any, spec: dict[str, Any]) -> None:
    labels, y_type = spec["labels"], spec["y_type"]
    _require(isinstance(labels, list) and y_type in _Y_TYPES, "a list of classes")
    dtype = np.dtype(_text(spec["dtype"]))
    _require(dtype.kind in "biufUO", "classes that are numbers or text")
    classes = np.array([_plain(label) for label in labels], dtype=dtype)
    _require(classes.ndim == 1 and classes.tolist() == labels, f"classes of type {dtype}")
    n_outputs = len(labels) if y_type != "binary" else 1
    _require(n_outputs == est.n_outputs_ and len(labels) > 0, "as many classes as outputs")
    _require(y_type != "binary" or len(labels) <= 2, "at most two classes")
    est.classes_ = classes
    est._label_binarizer = binarizer = LabelBinarizer()
    binarizer.classes_ = classes
    binarizer.y_type_ = y_type
    binarizer.sparse_input_ = bool(spec["sparse"])


# --- values that JSON does not have -----------------------------------------------------------


def _encode(name: str, value: Any) -> Any:
    """Return a constructor's parameter as JSON."""
    if name == "random_state":
        return int(value) if isinstance(value, (int, np.integer)) else None
    if isinstance(value, dict):  # class_weight: labels are not always strings
        return {"pairs": [[_plain(label), float(weight)] for label, weight in value.items()]}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_encode(name, item) for item in value]
    if isinstance(value, (float, np.floating)) and not math.isfinite(value):
        return {"float": str(float(value))}
    return _plain(value)


def _decode(name: str, value: Any) -> Any:
    if isinstance(value, dict) and "pairs" in value:
        return dict(_pair(pair) for pair in value["pairs"])
    if isinstance(value, dict):
        return float(value["float"])
    if isinstance(value, list):
        items: Iterable[Any] = (_decode(name, item) for item in value)
        return tuple(items) if name == "hidden_layer_sizes" else list(items)
    return value


def _pair(pair: Any) -> tuple[Any, float]:
    label, weight = pair
    return _plain(label), float(weight)


def _plain(value: Any) -> Any:
    """Return a label or parameter as one of JSON's scalars."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise SpecError(
        f"save: expected labels and parameters that are numbers or text, got {value!r}. "
        "Use such labels, or pickle the estimator."
    )


def _record(array: Array | None, ndim: int) -> Any:
    if array is None:
        return None
    _require(array.ndim == ndim and array.dtype == np.float64, "curves of float64")
    return array.tolist()


def _whole(value: Any, low: int) -> int:
    _require(type(value) is int and low <= value < 2**63, f"a whole number of at least {low}")
    return int(value)


def _text(value: Any) -> str:
    _require(isinstance(value, str), "text")
    return str(value)


def _require(condition: bool, expected: str) -> None:
    if not condition:
        raise ModelFileError(f"expected {expected}")
