"""Fitted estimators of raw tables as the specification and arrays of a model file, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.column_embeddings import ColumnEmbeddings
from lamina.core.ensemble import Ensemble
from lamina.core.errors import ModelFileError, SpecError
from lamina.tabular.explain import BACKGROUND_ROWS
from lamina.tabular.fit_report import FitReport
from lamina.tabular.head import ClassHead, NumberHead
from lamina.tabular.inputs import Inputs
from lamina.tabular.neighbours import Neighbours
from lamina.tabular.quantiles import Quantiles
from lamina.tabular.row_losses import class_codes
from lamina.tabular.table import CODED, Column, Table
from lamina.tabular.target import Target
from lamina.tabular.uses import DROPPED

Array = NDArray[Any]


def to_parts(est: Any) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the specification and the arrays of a fitted estimator."""
    spec: dict[str, Any] = {
        "parameters": {k: _encode(k, v) for k, v in est.get_params(deep=False).items()},
        "network": est.ensemble_.spec.to_json(),
        "n_members": len(est.ensemble_),
        "inputs": est.inputs_.to_json(),
        "head": est.head_.to_json(),
        "report": est.report_.to_json(),
        "n_features_in_": int(est.n_features_in_),
    }
    arrays = {
        "theta": np.stack([network.theta for network in est.ensemble_]),
        "out_of_fold": est._out_of_fold,
        "background": est.background_,
        **est.inputs_.arrays(),
    }
    if isinstance(est.head_, NumberHead):
        arrays |= est.head_.arrays()
        if hasattr(est, "quantiles_"):
            arrays |= est.quantiles_.arrays()
            spec["quantiles"] = est.quantiles_.to_json()
        spec["n_dims"] = est._n_dims
    else:
        spec["classes"] = classes_to_json(est.classes_)
    if est.neighbours_ is not None:
        arrays |= est.neighbours_.arrays()
        spec["neighbours"] = est.neighbours_.to_json()
    if hasattr(est, "held_out_"):
        arrays["held_out"] = held_values(est)
    if hasattr(est, "feature_names_in_"):
        spec["feature_names_in_"] = [str(name) for name in est.feature_names_in_]
    if hasattr(est, "target_"):
        spec["target"] = est.target_.to_json()
    return spec, arrays


def from_parts(kind: type[Any], spec: Mapping[str, Any], arrays: Mapping[str, Array]) -> Any:
    """Return the estimator that `to_parts` took apart.

    Parameters
    ----------
    kind : type
        TabularClassifier or TabularRegressor.
    spec, arrays : mapping
        From a file that nobody vouches for.

    Raises
    ------
    LaminaError, or what Python raises where a field is of another form
        They do not describe an estimator; `lamina.load` makes one sentence of it.
    """
    est = kind(**{k: _decode(k, v) for k, v in spec["parameters"].items()})
    est._validate_params()
    est.inputs_ = Inputs.from_json(spec["inputs"], arrays)
    est.neighbours_ = None
    if "neighbours" in spec or "neighbours.rows" in arrays:
        est.neighbours_ = Neighbours.from_json(spec["neighbours"], arrays, est.inputs_.cells)
    ensemble = {"network": spec["network"], "n_members": spec["n_members"]}
    est.ensemble_ = Ensemble.from_file_parts(ensemble, {"theta": arrays["theta"]})
    est.report_ = FitReport.from_json(spec["report"])
    _require(est.report_.n_members == len(est.ensemble_), "a report of as many members")
    _restore_columns(est, spec)
    if kind._role == "tabular_classifier":
        est.head_ = ClassHead.from_json(spec["head"])
        est.classes_ = classes_from_json(spec["classes"])
        _require(len(est.classes_) == est.head_.n_outputs, "as many classes as outputs")
    else:
        est.head_ = NumberHead.from_json(spec["head"], arrays)
        est._n_dims = spec["n_dims"]
        _require(type(est._n_dims) is int and est._n_dims in (1, 2), "one or two dimensions")
        if "quantiles" in spec or "quantiles.theta" in arrays:
            est.quantiles_ = Quantiles.from_json(spec["quantiles"], arrays)
            reads = est.quantiles_.reads(est._cells, len(est.head_.centre))
            _require(reads, "its quantiles")
        _require(est._n_dims == 2 or len(est.head_.centre) == 1, "one target a dimension")
    _check_network(est)
    if "target" in spec:
        est.target_ = Target.from_json(spec["target"])
    if "held_out" in arrays:
        est.held_out_ = _held_out(est, arrays["held_out"])
    est._keep_out_of_fold(_out_of_fold(est, arrays))
    est.background_ = _background(est, arrays)
    _dry_run(est)
    return est


def _restore_columns(est: Any, spec: Mapping[str, Any]) -> None:
    """Set what scikit-learn remembers of X, and see that the inputs are among it."""
    n = spec["n_features_in_"]
    _require(type(n) is int and n == len(est.inputs_.uses.columns), "one use a column")
    est.n_features_in_ = n
    names = [use.name for use in est.inputs_.uses]
    _require(len(set(names)) == n, "each column once")
    if "feature_names_in_" in spec:
        _require(spec["feature_names_in_"] == names, "the columns' names")
        est.feature_names_in_ = np.array(names, dtype=object)


def _check_network(est: Any) -> None:
    """See that the network reads these inputs and has the head's outputs."""
    spec, objective = est.ensemble_.spec, est.head_.objective
    encoding = spec.encoding
    _require(isinstance(encoding, ColumnEmbeddings), "embeddings of columns")
    _require(encoding.cells == est._cells, "a network that reads these columns")
    _require(
        (spec.d_out, spec.output) == (objective.d_out, objective.output),
        f"a network of {objective.d_out} outputs, {objective.output}",
    )


def held_values(est: Any) -> NDArray[np.float64]:
    """Return `held_out_` of a fit from files: numbers, or the indices of classes."""
    if isinstance(est.head_, NumberHead):
        return np.asarray(est.held_out_, np.float64)
    return class_codes(est.held_out_, est.classes_, "save").astype(np.float64)


def _held_out(est: Any, values: Array) -> Array:
    """Return the held-out rows' target of what `held_values` made."""
    good = values.dtype == np.float64 and values.ndim == 1
    _require(good and 1 <= len(values) <= est.report_.n_rows, "a target of the rows held out")
    _require(bool(np.isfinite(values).all()), "a target that is finite")
    if isinstance(est.head_, NumberHead):
        return values
    codes = values.astype(np.int64)
    _require(bool(((codes == values) & (codes >= 0)).all()), "classes of the rows held out")
    _require(int(codes.max()) < len(est.classes_), "classes of the rows held out")
    return np.asarray(est.classes_[codes])


def _out_of_fold(est: Any, arrays: Mapping[str, Array]) -> Array:
    output = arrays["out_of_fold"]
    n = len(est.held_out_) if hasattr(est, "held_out_") else est.report_.n_rows
    shape = (n, est.ensemble_.spec.d_out)
    _require(output.dtype == np.float32 and output.shape == shape, "an output for each row")
    _require(not np.isinf(output).any(), "outputs that are finite")
    if isinstance(est.head_, ClassHead):
        known = output[~np.isnan(output)]
        _require(bool(((known >= 0) & (known <= 1)).all()), "probabilities")
    return output


def _background(est: Any, arrays: Mapping[str, Array]) -> Array:
    x = arrays["background"]
    good = x.dtype == np.float32 and x.ndim == 2 and x.shape[1] == len(est.inputs_.cells)
    _require(good and 1 <= len(x) <= BACKGROUND_ROWS, "a background of encoded rows")
    _require(bool(np.isfinite(x).all()), "a background that is finite")
    return x


def _dry_run(est: Any) -> None:
    """Predict a row of missing values and one of others: parts that do not fit trip over it."""
    columns = {}
    for use in est.inputs_.uses:
        if use.use in DROPPED:
            continue
        coded = use.kind in CODED
        values = np.array([-1, 0], np.int32) if coded else np.array([np.nan, 0.0])
        levels = ("false", "true") if coded else ()
        columns[use.name] = Column(use.name, use.kind, values, levels)
    predicted = np.asarray(est.predict(Table(columns, 2)))
    _require(len(predicted) == 2, "one prediction a row")


def classes_to_json(classes: Array) -> dict[str, Any]:
    """Return classes as JSON, with their type."""
    dtype = "object" if classes.dtype == object else classes.dtype.str
    return {"dtype": dtype, "labels": [_plain(label) for label in classes]}


def classes_from_json(state: Mapping[str, Any]) -> Array:
    """Return the classes (n,) of `classes_to_json`; an error if there are none."""
    labels, name = state["labels"], state["dtype"]
    _require(isinstance(labels, list) and isinstance(name, str), "a list of classes")
    dtype = np.dtype(name)
    _require(dtype.kind in "biufUO", "classes that are numbers or text")
    classes = np.array([_plain(label) for label in labels], dtype=dtype)
    _require(classes.ndim == 1 and classes.tolist() == labels, f"classes of type {dtype}")
    _require(len(set(labels)) == len(labels) > 0, "classes that differ")
    return classes


# --- parameters as JSON -----------------------------------------------------------------------


def _encode(name: str, value: Any) -> Any:
    """Return a constructor's parameter as JSON."""
    if name == "random_state":
        return int(value) if isinstance(value, (int, np.integer)) else None
    if isinstance(value, Mapping):  # class_weight: labels are not always strings
        return {"pairs": [[_plain(key), _plain(item)] for key, item in value.items()]}
    return _plain(value)


def _decode(name: str, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    pairs = {_plain(key): _plain(item) for key, item in value["pairs"]}
    wanted = str if name == "types" else (int, float)
    _require(all(isinstance(item, wanted) for item in pairs.values()), f"{name} by key")
    return pairs


def _plain(value: Any) -> Any:
    """Return a label or parameter as one of JSON's scalars."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise SpecError(
        f"save: expected labels and parameters that are numbers or text, got {value!r:.80}. "
        "Use such labels, or pickle the estimator."
    )


def _require(condition: bool, expected: str) -> None:
    if not condition:
        raise ModelFileError(f"expected {expected}")
