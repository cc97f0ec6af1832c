"""What the two estimators share: scikit-learn's contract around the solvers."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from lamina.core import modelfile
from lamina.core.engine import default_n_threads, recent_n_threads
from lamina.core.errors import DataError, DivergenceError, ShapeError, SpecError
from lamina.core.functions import ACTIVATIONS
from lamina.tabular.coefficients import Array, Coefficients
from lamina.tabular.lbfgs import fit_lbfgs
from lamina.tabular.mlp_file import to_parts
from lamina.tabular.objective import OUTPUT_UNITS
from lamina.tabular.rows import Rows, rows_a_block
from lamina.tabular.stochastic import Optimizer, fit_stochastic

STOCHASTIC_SOLVERS = ("sgd", "adam")


class NameOf(StrOptions):
    """One of several names, which a message lists in the same order every time."""

    def __str__(self) -> str:
        return f"a str among {{{', '.join(map(repr, sorted(self.options)))}}}"


class NonFiniteWeightsError(DivergenceError, ValueError):
    """A fit ended with weights that are not finite; a ValueError, as scikit-learn raises."""


def store(estimator: Any, arguments: Mapping[str, Any]) -> None:
    """Keep the arguments of ``__init__`` as they are: what scikit-learn asks of estimators."""
    for name, value in arguments.items():
        if name != "self":
            setattr(estimator, name, value)


class BaseMLP(BaseEstimator):
    """Parameters, validation, fit and forward pass of `MLPClassifier` and `MLPRegressor`."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [NameOf({"logistic", *ACTIVATIONS}), list, tuple],
        "solver": [NameOf({"lbfgs", "sgd", "adam"})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [NameOf({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [NameOf({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [
            Interval(Integral, 1, None, closed="left"),
            Options(Real, {np.inf}),
        ],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "n_threads": [None, Interval(Integral, 1, None, closed="left")],
    }

    _role: ClassVar[str]  # the estimator's name in model files
    activation: Any
    alpha: float
    early_stopping: bool
    hidden_layer_sizes: Any
    loss: str
    n_threads: int | None
    random_state: Any
    solver: str
    warm_start: bool
    n_features_in_: int
    n_layers_: int
    n_outputs_: int
    n_iter_: int
    t_: int
    out_activation_: str
    _coefficients: Coefficients
    _optimizer: Optimizer

    # --- coefs_ and intercepts_: lists of arrays that may be replaced and edited --------------

    @property
    def coefs_(self) -> Any:
        """The weight matrices (fan_in, fan_out), one a layer; edits count from then on."""
        return self._shown("coefs")

    @coefs_.setter
    def coefs_(self, value: Any) -> None:
        intercepts = getattr(self, "intercepts_", None)
        self._coefficients = Coefficients(coefs=value, intercepts=intercepts)

    @property
    def intercepts_(self) -> Any:
        """The bias vectors (fan_out,), one a layer; edits count from then on."""
        return self._shown("intercepts")

    @intercepts_.setter
    def intercepts_(self, value: Any) -> None:
        self._coefficients = Coefficients(coefs=getattr(self, "coefs_", None), intercepts=value)

    def _shown(self, kind: str) -> Any:
        held = self.__dict__.get("_coefficients")
        arrays = None if held is None else getattr(held, kind)
        if arrays is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute '{kind}_'")
        return arrays

    # --- fit ----------------------------------------------------------------------------------

    def _check_fit(self, weight: Array | None) -> None:
        where = f"{type(self).__name__}.fit"
        # DIFF(scikit-learn): it trains on with negative weights, towards a larger loss.
        if weight is not None and weight.size and weight.min() < 0:
            raise DataError(
                f"{where}: expected sample_weight and class_weight not negative, got "
                f"{weight.min():g}. Give rows to be ignored the weight 0."
            )
        if self.dropout and self.solver == "lbfgs":
            raise SpecError(
                f"{where}: expected dropout=0 with solver='lbfgs', which needs a loss that stays "
                f"the same, got dropout={self.dropout}. Use solver='adam' or 'sgd'."
            )

    def _fit(self, X: Any, y: Any, sample_weight: Any, incremental: bool) -> Any:
        widths = self._widths()
        self._activations(len(widths))
        continued = incremental or self.warm_start
        first = not (continued and "_coefficients" in self.__dict__)
        X, y, target = self._validate_input(X, y, incremental, first)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X)
        sample_weight = self._combined_weight(y, target, sample_weight)
        self._check_fit(sample_weight)
        self.n_outputs_ = target.shape[1] if target.ndim == 2 else self._n_classes()
        self._random_state = check_random_state(self.random_state)
        if first:
            self._initialize((X.shape[1], *widths, self.n_outputs_), X.dtype)
        theta, dims = self._coefficients.theta, self._coefficients.dims
        if (dims[0], dims[-1]) != (X.shape[1], self.n_outputs_):
            raise ShapeError(
                f"{type(self).__name__}: expected {dims[0]} features and {dims[-1]} outputs, as "
                f"fitted before, got {X.shape[1]} and {self.n_outputs_}. Continue with data of "
                "the same shape, or fit a new estimator."
            )
        rows = Rows.of(X, target, sample_weight, theta.dtype)
        if self.solver in STOCHASTIC_SOLVERS:
            theta = fit_stochastic(self, rows, theta, dims, incremental=incremental, first=first)
        else:
            theta = fit_lbfgs(self, rows, theta, dims)
        self._coefficients = Coefficients(theta, dims)
        if not np.isfinite(theta).all():
            raise NonFiniteWeightsError(
                f"{type(self).__name__}.fit: expected finite weights, got NaN or infinity after "
                f"{self.n_iter_} iterations. Solver produced non-finite parameter weights. The "
                "input data may contain large values and need to be preprocessed. Standardise X "
                "(sklearn.preprocessing.StandardScaler), lower learning_rate_init, or use the "
                "solver 'adam'."
            )
        return self

    def _widths(self) -> list[int]:
        sizes = self.hidden_layer_sizes
        sizes = list(sizes) if hasattr(sizes, "__iter__") else [sizes]
        if not all(isinstance(size, (int, np.integer)) and size > 0 for size in sizes):
            raise SpecError(
                f"hidden_layer_sizes must be > 0, got {sizes}. Pass whole numbers such as "
                "(100,), or () for a linear model."
            )
        return [int(size) for size in sizes]

    def _activations(self, n_hidden: int) -> str | tuple[str, ...]:
        """Return lamina's name of the activation, or one name a hidden layer."""
        given = self.activation
        if isinstance(given, str):
            return "sigmoid" if given == "logistic" else given
        names = tuple("sigmoid" if name == "logistic" else name for name in given)
        if len(names) != n_hidden or not all(name in ACTIVATIONS for name in names):
            raise SpecError(
                f"{type(self).__name__}: expected as activation one name, or one for each of "
                f"{n_hidden} hidden layers, got {list(given)}. Names: logistic, "
                f"{', '.join(ACTIVATIONS)}."
            )
        return names

    def _output_unit(self) -> str:
        return OUTPUT_UNITS.get(self.out_activation_, self.out_activation_)

    def _initialize(self, dims: tuple[int, ...], dtype: Any) -> None:
        """Draw the weights as scikit-learn draws them, and forget earlier fits."""
        self.n_iter_ = 0
        self.t_ = 0
        self.n_layers_ = len(dims)
        self.out_activation_ = self._choose_out_activation()
        names = self._activations(len(dims) - 2)
        hidden = (names,) * (len(dims) - 2) if isinstance(names, str) else names
        # scikit-learn scales the output layer as the hidden ones.
        last = names if isinstance(names, str) else (names or ("identity",))[-1]
        pieces = []
        for fan_in, fan_out, name in zip(dims[:-1], dims[1:], (*hidden, last), strict=True):
            # Glorot and Bengio (2010), eq. 16; a third of its variance for the sigmoid
            bound = np.sqrt((2.0 if name == "sigmoid" else 6.0) / (fan_in + fan_out))
            weight = self._random_state.uniform(-bound, bound, (fan_in, fan_out))
            pieces += [weight.T.ravel(), self._random_state.uniform(-bound, bound, fan_out)]
        self._coefficients = Coefficients(np.concatenate(pieces, dtype=dtype), dims)
        if self.solver in STOCHASTIC_SOLVERS:
            for name in ("loss_curve_", "best_loss_", "validation_scores_"):
                self.__dict__.pop(name, None)
            self.best_validation_score_ = None

    # --- what the classifier and the regressor fill in ----------------------------------------

    def _validate_input(
        self, X: Any, y: Any, incremental: bool, reset: bool
    ) -> tuple[Any, Array, Array]:
        """Return X, y as validated, and the engine's target."""
        raise NotImplementedError

    def _choose_out_activation(self) -> str:
        raise NotImplementedError

    def _n_classes(self) -> int:
        raise NotImplementedError

    def _combined_weight(
        self,
        y: Array,  # noqa: ARG002
        target: Array,  # noqa: ARG002
        weight: Array | None,
    ) -> Array | None:
        """Return sample weights times class weights, None for equal ones."""
        return weight

    def _strata(self, target: Array) -> Array | None:  # noqa: ARG002
        """Return what the validation split keeps in proportion, None for nothing."""
        return None

    def _scorer(self, target: Array, weight: Array | None) -> Callable[[Array], float]:
        """Return the function from outputs (n, d_out) to the validation score."""
        raise NotImplementedError

    # --- forward ------------------------------------------------------------------------------

    def _forward(self, X: Any) -> Array:
        """Return the outputs (n, d_out) for rows as users pass them."""
        held: Any = self.__dict__.get("_coefficients")
        if held is None:
            check_is_fitted(self, "coefs_")  # raises
        x = X if self._is_clean(X) else self._validated(X)
        names = self.activation
        if names == "logistic" or not isinstance(names, str):
            names = self._activations(len(held.dims) - 2)
        engine = held.engine(names, self._output_unit(), x.dtype)
        if x.shape[1] != engine.spec.d_in:
            raise ShapeError(
                f"{type(self).__name__}: expected X with {engine.spec.d_in} columns, as coefs_ "
                f"has rows, got {x.shape[1]}. Assign matrices that fit the data."
            )
        if isinstance(x, np.ndarray):
            n_threads = self.n_threads
            asked = recent_n_threads if n_threads is None else lambda: default_n_threads(n_threads)
            y_pred: Array | None = engine.predict(x, None, asked)
            return engine.forward(x, n_threads) if y_pred is None else y_pred
        n_block = rows_a_block(x)
        blocks = (x[start : start + n_block] for start in range(0, x.shape[0], n_block))
        return np.concatenate([engine.forward(b.toarray(), self.n_threads) for b in blocks])

    def _is_clean(self, X: Any) -> bool:
        """Whether X needs none of scikit-learn's validation, which costs some 100 us a call."""
        return (
            type(X) is np.ndarray
            and X.ndim == 2
            and X.dtype in CLEAN_DTYPES
            and X.flags.c_contiguous
            and X.shape[1] == self.n_features_in_
            and X.shape[0] > 0
            and "feature_names_in_" not in self.__dict__
            and _all_finite(X)
        )

    def _validated(self, X: Any) -> Any:
        x = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        if not isinstance(x, np.ndarray):
            return x.tocsr()  # rows are taken in blocks
        return np.asarray(x)

    def _check_solver(self) -> bool:
        if self.solver not in STOCHASTIC_SOLVERS:
            raise AttributeError(
                "partial_fit is only available for stochastic"
                f" optimizers. {self.solver} is not stochastic."
            )
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # --- model files --------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to a file that ``lamina.load`` reads.

        Parameters
        ----------
        path : str or path-like
            Written as a whole or not at all.

        Raises
        ------
        NotFittedError, ModelFileError

        Notes
        -----
        The file holds parameters, learned arrays and the record of the fit, but not the
        optimiser's memory: ``partial_fit`` on a loaded estimator starts with fresh moments. A
        ``random_state`` other than an int or None is not kept.
        """
        if "_coefficients" not in self.__dict__:
            check_is_fitted(self, "coefs_")
        modelfile.write(path, self._role, *to_parts(self))


def _all_finite(X: Array) -> bool:
    # A sum of squares that is finite has finite terms; it takes a third of the time of the full
    # test, which must decide when the sum overflows.
    if X.size <= FEW_NUMBERS and math.isfinite(np.vdot(X, X)):
        return True
    return bool(np.isfinite(X).all())


FEW_NUMBERS = 4096
CLEAN_DTYPES = (np.dtype(np.float64), np.dtype(np.float32))
