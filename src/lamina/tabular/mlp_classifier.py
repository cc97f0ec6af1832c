"""The classifier: scikit-learn's multilayer perceptron on lamina's engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import column_or_1d, compute_class_weight, compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target, unique_labels
from sklearn.utils.validation import validate_data

from lamina.core.metrics import accuracy
from lamina.tabular.coefficients import Array
from lamina.tabular.mlp_base import BaseMLP, NameOf, store
from lamina.tabular.mlp_file import from_parts


class MLPClassifier(ClassifierMixin, BaseMLP):
    """Multilayer perceptron classifier with scikit-learn's parameters, attributes and results.

    Minimises the log loss, with one softmax over the classes, or one sigmoid an output for two
    classes and for multilabel targets. With the same ``random_state`` float64 fits follow
    scikit-learn's to rounding.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default (100,)
        Units in each hidden layer; ``()`` is a linear model.
    activation : str or sequence of str, default "relu"
        Of the hidden layers, one name for all or one each: identity, logistic (also called
        sigmoid), tanh, relu, step, leaky_relu, softplus, gelu, gelu_tanh, silu, selu, mish, sine,
        squared_relu. scikit-learn has the first four.
    solver : {"adam", "sgd", "lbfgs"}, default "adam"
        lbfgs, which sees all rows in every iteration, suits some thousand rows or fewer.
    alpha : float ≥ 0, default 0.0001
        The penalty alpha/2 sum W^2, divided by the rows (or weight) of the batch. Raise it
        against overfitting.
    batch_size : int ≥ 1 or "auto", default "auto"
        Rows a step of sgd and adam; "auto" is min(200, n).
    learning_rate : {"constant", "invscaling", "adaptive"}, default "constant"
        sgd only. invscaling: learning_rate_init / (t + 1)^power_t after t rows. adaptive: a fifth
        each time that training would stop, down to 1e-6.
    learning_rate_init : float > 0, default 0.001
        The first learning rate of sgd and adam.
    power_t : float ≥ 0, default 0.5
        The exponent of invscaling.
    max_iter : int ≥ 1, default 200
        The most epochs, or iterations of lbfgs.
    shuffle : bool, default True
        Visit the rows in a new order each epoch.
    random_state : int, RandomState or None, default None
        Draws first weights, orders and the validation split: the very ones of scikit-learn.
    tol : float ≥ 0, default 0.0001
        An epoch counts as better if its loss or score improves by at least this.
    verbose : bool or int, default False
        Print the loss of each epoch.
    warm_start : bool, default False
        Let ``fit`` start from the weights of the last fit.
    momentum : float in [0, 1], default 0.9
        Of sgd.
    nesterovs_momentum : bool, default True
        Look ahead along the momentum; sgd only.
    early_stopping : bool, default False
        Hold rows out, stop when their score no longer improves and keep the best weights.
    validation_fraction : float in [0, 1), default 0.1
        The share of rows held out.
    beta_1, beta_2 : float in [0, 1), default 0.9 and 0.999
        How slowly adam's two moments forget.
    epsilon : float > 0, default 1e-8
        Added to the root of adam's second moment.
    n_iter_no_change : int ≥ 1 or inf, default 10
        Epochs without improvement before training stops.
    max_fun : int ≥ 1, default 15000
        The most evaluations of the loss by lbfgs.
    dropout : float in [0, 1), default 0.0
        The share of hidden units left out at random in each step of sgd and adam; 0.1 to 0.5
        against overfitting of wide layers. Not in scikit-learn.
    n_threads : int ≥ 1 or None, default None
        None asks LAMINA_NUM_THREADS, OMP_NUM_THREADS, then the machine. Not in scikit-learn.
    class_weight : dict, "balanced" or None, default None
        Weights of the classes, which multiply ``sample_weight``; "balanced" weighs each class by
        n / (n_classes * its rows), for when rare classes matter as much. Not in scikit-learn.

    Attributes
    ----------
    classes_ : array (n_classes,)
        The labels, in the order of the columns of ``predict_proba``.
    coefs_, intercepts_ : lists of arrays (fan_in, fan_out) and (fan_out,)
        One each a layer. They may be edited or replaced: predictions follow.
    loss_ : float
        The loss of the last epoch, or at lbfgs's solution, penalty included.
    best_loss_ : float or None
        The lowest; None with early stopping.
    loss_curve_ : list of float
        One an epoch; sgd and adam only.
    validation_scores_ : list of float or None
        Accuracy on the rows held out, one an epoch; None without early stopping.
    best_validation_score_ : float or None
        The highest of them.
    n_iter_, t_ : int
        Epochs or iterations of the last fit; rows seen in all.
    n_layers_, n_outputs_, n_features_in_ : int
        Layers counting the input; outputs; columns of X.
    feature_names_in_ : array of str
        Only if X had names.
    out_activation_ : str
        "softmax" or "logistic".

    Notes
    -----
    float32 rows train in float32 (lbfgs: in float64), others in float64.
    C-contiguous float rows are not copied. Sparse rows are made dense once where that takes at
    most 256 MiB, and batch by batch, more slowly, where it takes more.

    The losses that sgd and adam report are exact where scikit-learn clips probabilities to
    [eps, 1 - eps]: for outputs that are saturated on the wrong side they are larger.

    Examples
    --------
    >>> import numpy as np
    >>> from lamina import MLPClassifier
    >>> x = np.random.default_rng(0).normal(size=(200, 2))
    >>> y = np.where(x[:, 0] * x[:, 1] > 0, "same", "different")
    >>> model = MLPClassifier((16,), solver="lbfgs", random_state=0).fit(x, y)
    >>> print(*model.predict([[1.0, 1.0], [1.0, -1.0]]))
    same different
    """

    _role = "mlp_classifier"  # of its model files

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseMLP._parameter_constraints,
        "class_weight": [NameOf({"balanced"}), dict, list, None],
    }

    loss = "log_loss"
    class_weight: Any
    classes_: Array
    _label_binarizer: Any

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        dropout: float = 0.0,
        class_weight: Any = None,
        n_threads: int | None = None,
    ) -> None:
        store(self, locals())

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPClassifier:
        """Fit to rows X and labels y.

        Parameters
        ----------
        X : array-like or sparse matrix (n, d)
        y : array-like (n,) of labels, or (n, n_labels) of 0 and 1 for a multilabel target
        sample_weight : array-like (n,), optional

        Returns
        -------
        self

        Raises
        ------
        ValueError
            The arguments do not fit together, or training diverged (also a DivergenceError).
        """
        self._fit(X, y, sample_weight, incremental=False)
        return self

    @available_if(lambda est: est._check_solver())  # type: ignore[untyped-decorator]
    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def partial_fit(
        self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None
    ) -> MLPClassifier:
        """Go on with one epoch over the given rows; sgd and adam only.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.
        classes : array-like (n_classes,), optional
            All labels that will ever come; the first call needs them.

        Returns
        -------
        self
        """
        if isinstance(self.class_weight, str):
            raise ValueError(
                "MLPClassifier.partial_fit: expected class_weight to be None or a dict, got "
                "'balanced'. Balance over all rows: pass compute_class_weight('balanced', ...)."
            )
        if _check_partial_fit_first_call(self, classes):
            multilabel = type_of_target(y).startswith("multilabel")
            self._label_binarizer = LabelBinarizer().fit(y if multilabel else classes)
        self._fit(X, y, sample_weight, incremental=True)
        return self

    def predict(self, X: Any) -> Array:
        """Return the label of each row, shape (n,), or 0 and 1 for a multilabel target.

        Parameters
        ----------
        X : array-like or sparse matrix (n, d)
        """
        return self._labels(self._forward(X))

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class, shape (n, n_classes), or of each label.

        Parameters
        ----------
        X : array-like or sparse matrix (n, d)
        """
        p = self._forward(X)
        if p.shape[1] > 1:
            return p
        both = np.empty((len(p), 2), p.dtype)
        both[:, 1:] = p
        np.subtract(1, p, out=both[:, :1])
        return both

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithm of `predict_proba`.

        Parameters
        ----------
        X : array-like or sparse matrix (n, d)
        """
        p = self.predict_proba(X)
        return np.asarray(np.log(p, out=p))

    # --- labels ↔ targets ---------------------------------------------------------------------

    def _validate_input(
        self, X: Any, y: Any, incremental: bool, reset: bool
    ) -> tuple[Any, Array, Array]:
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse=["csr", "csc"],
            multi_output=True,
            dtype=(np.float64, np.float32),
            reset=reset,
        )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if not hasattr(self, "classes_") or not (self.warm_start or incremental):
            self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
        else:
            self._check_labels(unique_labels(y))
        return X, y, self._encode(y)

    def _check_labels(self, labels: Array) -> None:
        """Refuse labels that earlier calls rule out, in scikit-learn's words."""
        if self.warm_start and set(labels) != set(self.classes_):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous "
                f"call to fit. Previously got {self.classes_}, `y` has {labels}"
            )
        if len(np.setdiff1d(labels, self.classes_, assume_unique=True)):
            raise ValueError(
                "`y` has classes not in `self.classes_`. "
                f"`self.classes_` has {self.classes_}. 'y' has {labels}."
            )

    def _encode(self, y: Any) -> Array:
        """Return int32 classes (n,) for a softmax, else 0 and 1 (n, n_outputs)."""
        kind = self._label_binarizer.y_type_
        if kind.startswith("multilabel") or y.ndim != 1:
            return np.asarray(self._label_binarizer.transform(y), bool)  # (n, n_outputs)
        index = np.searchsorted(self.classes_, y)
        if kind == "multiclass":
            return np.asarray(index, np.int32)
        return np.asarray(index == 1)[:, np.newaxis]  # (n, 1)

    def _labels(self, p: Array) -> Array:
        """Return labels for outputs (n, n_outputs)."""
        kind = self._label_binarizer.y_type_
        if kind == "multiclass":
            return np.asarray(self.classes_[p.argmax(axis=1)])
        if kind == "binary" and not self._label_binarizer.sparse_input_:
            index = (p[:, 0] > 0.5) & (len(self.classes_) > 1)
            return np.asarray(self.classes_[index.view(np.int8)])
        labels: Array = self._label_binarizer.inverse_transform(p)
        return labels

    def _choose_out_activation(self) -> str:
        return "softmax" if self._label_binarizer.y_type_ == "multiclass" else "logistic"

    def _n_classes(self) -> int:
        return len(self.classes_)

    def _combined_weight(self, y: Array, target: Array, weight: Array | None) -> Array | None:
        if self.class_weight is None:
            return weight
        if self._label_binarizer.y_type_.startswith("multilabel"):
            factor = compute_sample_weight(self.class_weight, y)
        else:
            table = compute_class_weight(self.class_weight, classes=self.classes_, y=y)
            factor = table[target.reshape(-1).astype(np.intp)]
        return np.asarray(factor if weight is None else factor * weight)

    def _strata(self, target: Array) -> Array | None:
        # scikit-learn stratifies two classes only, and its message names them False and True.
        if target.ndim == 1 or target.shape[1] > 1:
            return None
        return np.where(target[:, 0] > 0.5, "True", "False")

    def _scorer(self, target: Array, weight: Array | None) -> Callable[[Array], float]:
        if target.ndim == 1:
            return lambda p: accuracy(target, p.argmax(axis=1), weight)
        truth = target > 0.5
        return lambda p: accuracy(truth, p > 0.5 if len(self.classes_) > 1 else truth, weight)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


def classifier_from_parts(spec: dict[str, Any], arrays: dict[str, Array]) -> MLPClassifier:
    """Return the classifier of a model file's parts; the loader of the role mlp_classifier."""
    estimator: MLPClassifier = from_parts(MLPClassifier, spec, arrays)
    return estimator
