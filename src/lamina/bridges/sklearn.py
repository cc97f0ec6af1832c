"""Networks from scikit-learn's multilayer perceptrons, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.errors import ShapeError, SpecError, require_extra
from lamina.core.network import Network
from lamina.core.spec import NetworkSpec

if TYPE_CHECKING:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

# scikit-learn's name of a function, where it differs from lamina's
_TO_LAMINA: Final = {"logistic": "sigmoid"}
_TO_SKLEARN: Final = {"sigmoid": "logistic"}
_ACTIVATIONS: Final = ("identity", "sigmoid", "tanh", "relu")  # those scikit-learn has


def refuse_encoding(net: Network, where: str) -> None:
    """Refuse a network whose first layer reads an encoding: `where` would drop it."""
    if net.encoding is not None:
        raise SpecError(
            f"{where}: expected a network without an encoding, got {type(net.encoding).__name__}. "
            "Save it with net.save, or encode the rows first and export a network of those."
        )


def as_network(model: Any, where: str) -> Network:
    """Return a network as it is, and a fitted estimator as its network; refuse anything else."""
    if isinstance(model, Network):
        return model
    if hasattr(model, "hidden_layer_sizes"):
        return from_sklearn(model)
    raise SpecError(
        f"{where}: expected a lamina.Network or a fitted MLPClassifier or MLPRegressor, "
        f"got {type(model).__name__}. Pass the network itself."
    )


# ---------------------------------------------------------------------------------- from_sklearn


def from_sklearn(estimator: Any) -> Network:
    """Turn a fitted multilayer perceptron of scikit-learn's form into a network.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        Fitted; scikit-learn's, or lamina's own.

    Returns
    -------
    Network
        Of the dtype of ``coefs_``. Its output is ``predict_proba`` for more than two classes and
        for several labels, the probability of ``classes_[1]`` (one column) for two classes, and
        ``predict`` (one column an output) for a regressor.

    Raises
    ------
    SpecError
        If `estimator` is not one of these, or not fitted.
    ShapeError
        If its coefficients do not fit together.

    Examples
    --------
    >>> import lamina
    >>> from sklearn.neural_network import MLPRegressor
    >>> fitted = MLPRegressor("squared_error", (5,), solver="lbfgs").fit([[0.0], [1.0]], [0.0, 1.0])
    >>> lamina.from_sklearn(fitted)([[0.5]]).shape
    (1, 1)
    """
    missing = [
        name
        for name in ("coefs_", "intercepts_", "out_activation_", "activation")
        if not hasattr(estimator, name)
    ]
    if missing:
        raise SpecError(
            "from_sklearn: expected a fitted MLPClassifier or MLPRegressor, "
            f"got {type(estimator).__name__} without {missing[0]}. Call fit first."
        )
    coefs = [np.asarray(coef) for coef in estimator.coefs_]
    intercepts = [np.asarray(intercept) for intercept in estimator.intercepts_]
    _check_shapes(coefs, intercepts)
    activation = estimator.activation
    if isinstance(activation, str):
        activation = (activation,) * (len(coefs) - 1)
    spec = NetworkSpec.create(
        coefs[0].shape[0],
        tuple(coef.shape[1] for coef in coefs[:-1]),
        coefs[-1].shape[1],
        activation=tuple(_TO_LAMINA.get(name, name) for name in activation),
        output=_TO_LAMINA.get(estimator.out_activation_, estimator.out_activation_),
        dropout=getattr(estimator, "dropout", 0.0),
        dtype="float32" if coefs[0].dtype == np.float32 else "float64",
    )
    # theta is W_1 row by row, b_1, W_2, ...; scikit-learn's coefs are the transposed weights
    parts = [part for pair in zip(coefs, intercepts, strict=True) for part in pair]
    return Network.from_spec(spec, np.concatenate([part.T.ravel() for part in parts]))


def _check_shapes(coefs: list[npt.NDArray[Any]], intercepts: list[npt.NDArray[Any]]) -> None:
    sizes = [coef.shape for coef in coefs]
    chained = all(len(size) == 2 for size in sizes) and all(
        sizes[i][1] == sizes[i + 1][0] for i in range(len(sizes) - 1)
    )
    biases = [intercept.shape for intercept in intercepts]
    if not sizes or not chained or biases != [(size[1],) for size in sizes]:
        raise ShapeError(
            "from_sklearn: expected coefs_ and intercepts_ that follow one another, "
            f"got shapes {sizes} and {biases}. Fit the estimator again."
        )


# ------------------------------------------------------------------------------------ to_sklearn


def to_sklearn(net: Network, classes: Any = None) -> MLPClassifier | MLPRegressor:
    """Turn a network into a fitted scikit-learn estimator.

    Parameters
    ----------
    net : Network
        A plain chain: no skips, residuals or dropout, one activation for all hidden layers, of
        identity, sigmoid, tanh and relu. The output decides the estimator: identity and exp give
        an ``MLPRegressor`` (exp with ``loss="poisson"``), softmax and sigmoid an
        ``MLPClassifier``, for several labels if sigmoid has more than one output.
    classes : array-like of shape (n_classes,), optional
        The label of each output, for classifiers of one label; 0, 1, … by default. A network
        with one sigmoid output takes two: that for 0 and that for 1.

    Returns
    -------
    sklearn.neural_network.MLPClassifier or MLPRegressor
        It predicts, scores, pickles, and learns on with ``partial_fit``, whose optimiser starts
        afresh. ``classes_`` is sorted as scikit-learn wants it and the outputs with it. Two
        softmax outputs become one logistic output, which gives the same probabilities.

    Raises
    ------
    SpecError
        If scikit-learn cannot hold the network, or `classes` does not fit its outputs.
    MissingExtraError
        If scikit-learn is not installed.

    Examples
    --------
    >>> import lamina
    >>> net = lamina.Network(2, (8,), 3, output="softmax", rng=0)
    >>> lamina.to_sklearn(net, ["low", "mid", "high"]).predict([[0.0, 1.0]]).shape
    (1,)
    """
    _check_sklearn_holds(net)
    coefs = [np.array(weight.T, order="C") for weight in net.weights]
    intercepts = [np.array(bias) for bias in net.biases]
    if net.spec.output in ("identity", "exp"):
        if classes is not None:
            raise SpecError(
                f"to_sklearn: expected no classes for a network with output {net.spec.output!r}, "
                "got some. Leave them out, or train a network with output 'softmax'."
            )
        return _fitted(net, "MLPRegressor", coefs, intercepts, None)
    labels = _labels(net, classes)
    if net.spec.output == "softmax":
        order = np.argsort(labels)
        labels = labels[order]
        coefs[-1], intercepts[-1] = coefs[-1][:, order], intercepts[-1][order]
        if len(labels) == 2:  # softmax(z)_1 = sigmoid(z_1 - z_0)
            coefs[-1] = np.diff(coefs[-1])  # (width, 2) -> (width, 1)
            intercepts[-1] = np.diff(intercepts[-1])
    elif net.spec.d_out == 1 and labels[0] > labels[1]:  # sigmoid(-z) = 1 - sigmoid(z)
        labels = labels[::-1]
        coefs[-1], intercepts[-1] = -coefs[-1], -intercepts[-1]
    return _fitted(net, "MLPClassifier", coefs, intercepts, labels)


def _check_sklearn_holds(net: Network) -> None:
    """Raise SpecError for what scikit-learn's estimators have no place for."""
    if not isinstance(net, Network):
        raise SpecError(
            f"to_sklearn: expected a lamina.Network, got {type(net).__name__}. "
            "Pass the network itself."
        )
    refuse_encoding(net, "to_sklearn")
    spec = net.spec
    hidden = range(1, spec.n_layers)
    expected = got = ""
    if spec.skips:
        expected, got = "no skips", f"skips into layer {spec.skips[0][0]}"
    elif any(spec.residual_at(layer) for layer in hidden):
        expected, got = "no residual layers", "residual=True"
    elif spec.dropout and spec.widths:
        expected, got = "no dropout", f"dropout={spec.dropout}"
    elif len(set(spec.activations)) > 1:
        expected, got = "one activation for all hidden layers", " and ".join(spec.activations)
    elif set(spec.activations) - set(_ACTIVATIONS):
        expected, got = f"an activation of {', '.join(_ACTIVATIONS)}", spec.activations[0]
    elif spec.output == "step":
        expected, got = "output identity, exp, sigmoid or softmax", "step"
    elif spec.output == "softmax" and spec.d_out == 1:
        expected, got = "softmax over two outputs or more", "one"
    if expected:
        raise SpecError(
            f"to_sklearn: expected {expected}, got {got}. "
            "scikit-learn's MLP cannot hold it; use to_onnx or to_torch instead."
        )


def _labels(net: Network, classes: Any) -> npt.NDArray[Any]:
    """Return the labels of a classifier in the order of the network's outputs."""
    d_out = net.spec.d_out
    n_labels = 2 if d_out == 1 else d_out
    labels = np.arange(n_labels) if classes is None else np.asarray(classes)
    if labels.shape != (n_labels,) or len(np.unique(labels)) != n_labels:
        raise SpecError(
            f"to_sklearn: expected {n_labels} different classes for a network with "
            f"{d_out} {net.spec.output} outputs, got {classes!r}. Name each output once."
        )
    if net.spec.output == "sigmoid" and d_out > 1 and not np.array_equal(labels, range(d_out)):
        raise SpecError(
            "to_sklearn: expected no classes for a network of several sigmoid outputs, got "
            f"{classes!r}. scikit-learn numbers labels that do not exclude one another from 0."
        )
    return labels


def _fitted(
    net: Network,
    kind: str,
    coefs: list[npt.NDArray[Any]],
    intercepts: list[npt.NDArray[Any]],
    labels: npt.NDArray[Any] | None,
) -> Any:
    """Return an estimator that holds these coefficients.

    One ``partial_fit`` on rows of zeros lets scikit-learn make all its private attributes
    itself; then the coefficients are put in and the traces of that step taken out.
    """
    module = require_extra("sklearn.neural_network", "all")
    spec = net.spec
    arguments: dict[str, Any] = {"hidden_layer_sizes": spec.widths, "random_state": 0}
    if spec.widths:
        arguments["activation"] = _TO_SKLEARN.get(spec.activations[0], spec.activations[0])
    if spec.output == "exp":
        arguments["loss"] = "poisson"
    estimator = getattr(module, kind)(**arguments)
    x = np.zeros((2, spec.d_in), spec.dtype)
    if labels is None:
        estimator.partial_fit(x, np.zeros((2, spec.d_out) if spec.d_out > 1 else 2, spec.dtype))
    elif spec.output == "sigmoid" and spec.d_out > 1:
        estimator.partial_fit(x, np.eye(2, spec.d_out, dtype=np.int64), classes=labels)
    else:
        estimator.partial_fit(x, labels[:2], classes=labels)
    estimator.set_params(random_state=None)  # 0 above only spares NumPy's global generator
    estimator.coefs_, estimator.intercepts_ = coefs, intercepts
    estimator._best_coefs = [coef.copy() for coef in coefs]
    estimator._best_intercepts = [intercept.copy() for intercept in intercepts]
    estimator.n_iter_ = estimator.t_ = estimator._no_improvement_count = 0
    estimator.loss_curve_, estimator.best_loss_ = [], np.inf
    del estimator._optimizer, estimator.loss_  # partial_fit makes new ones
    return estimator
