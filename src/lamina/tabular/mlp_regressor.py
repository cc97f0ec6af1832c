"""The regressor: scikit-learn's multilayer perceptron on lamina's engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from sklearn.base import RegressorMixin, _fit_context
from sklearn.utils import column_or_1d
from sklearn.utils.validation import validate_data

from lamina.core.errors import DataError
from lamina.core.metrics import r2
from lamina.tabular.coefficients import Array
from lamina.tabular.mlp_base import BaseMLP, NameOf, store
from lamina.tabular.mlp_file import from_parts


class MLPRegressor(RegressorMixin, BaseMLP):
    """Multilayer perceptron regressor with scikit-learn's parameters, attributes and results.

    Minimises half the squared error, or half the Poisson deviance with an exponential output.
    With the same ``random_state`` float64 fits follow scikit-learn's to rounding.

    Parameters
    ----------
    loss : {"squared_error", "poisson"}, default "squared_error"
        poisson is for counts and rates, y ≥ 0.
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

    Attributes
    ----------
    coefs_, intercepts_ : lists of arrays (fan_in, fan_out) and (fan_out,)
        One each a layer. They may be edited or replaced: predictions follow.
    loss_ : float
        The loss of the last epoch, or at lbfgs's solution, penalty included.
    best_loss_ : float or None
        The lowest; None with early stopping.
    loss_curve_ : list of float
        One an epoch; sgd and adam only.
    validation_scores_ : list of float or None
        R^2 on the rows held out, one an epoch; None without early stopping.
    best_validation_score_ : float or None
        The highest of them.
    n_iter_, t_ : int
        Epochs or iterations of the last fit; rows seen in all.
    n_layers_, n_outputs_, n_features_in_ : int
        Layers counting the input; outputs; columns of X.
    feature_names_in_ : array of str
        Only if X had names.
    out_activation_ : str
        "identity" or "exp".

    Notes
    -----
    See `MLPClassifier` for dtypes, copies and sparse rows. As in scikit-learn, the squared error
    of several outputs is summed in the gradient and averaged in the reported loss.

    Examples
    --------
    >>> import numpy as np
    >>> from lamina import MLPRegressor
    >>> x = np.linspace(-1, 1, 100)[:, np.newaxis]
    >>> y = np.sin(3 * x[:, 0])
    >>> model = MLPRegressor(activation="tanh", solver="lbfgs", random_state=0).fit(x, y)
    >>> bool(model.score(x, y) > 0.99)
    True
    """

    _role = "mlp_regressor"  # of its model files

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseMLP._parameter_constraints,
        "loss": [NameOf({"squared_error", "poisson"})],
    }

    def __init__(
        self,
        loss: str = "squared_error",
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
        n_threads: int | None = None,
    ) -> None:
        store(self, locals())

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Fit to rows X and values y.

        Parameters
        ----------
        X : array-like or sparse matrix (n, d)
        y : array-like (n,) or (n, n_outputs)
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

    # As in scikit-learn, the method is there for lbfgs too, which goes on from the last weights.
    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Go on with one epoch over the given rows.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.

        Returns
        -------
        self
        """
        self._fit(X, y, sample_weight, incremental=True)
        return self

    def predict(self, X: Any) -> Array:
        """Return predicted values, shape (n,) for one output or (n, n_outputs).

        Parameters
        ----------
        X : array-like or sparse matrix (n, d)
        """
        y_pred = self._forward(X)
        return y_pred.ravel() if y_pred.shape[1] == 1 else y_pred

    def _validate_input(
        self,
        X: Any,
        y: Any,
        incremental: bool,  # noqa: ARG002
        reset: bool,
    ) -> tuple[Any, Array, Array]:
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse=["csr", "csc"],
            multi_output=True,
            y_numeric=True,
            dtype=(np.float64, np.float32),
            reset=reset,
        )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if self.loss == "poisson" and y.min() < 0:
            # DIFF(scikit-learn): it trains on, with a loss that is NaN in every epoch.
            raise DataError(
                f"MLPRegressor.fit: expected y ≥ 0 for the loss 'poisson', got {y.min()}. "
                "Use the squared error, or shift y."
            )
        return X, y, y[:, np.newaxis] if y.ndim == 1 else y

    def _choose_out_activation(self) -> str:
        return "exp" if self.loss == "poisson" else "identity"

    def _scorer(self, target: Array, weight: Array | None) -> Callable[[Array], float]:
        def score(y_pred: Array) -> float:
            with np.errstate(over="ignore"):  # a diverging fit: minus infinity says it all
                return r2(target, y_pred, weight) if np.isfinite(y_pred).all() else np.nan

        return score


def regressor_from_parts(spec: dict[str, Any], arrays: dict[str, Array]) -> MLPRegressor:
    """Return the regressor of a model file's parts; the loader of the role mlp_regressor."""
    estimator: MLPRegressor = from_parts(MLPRegressor, spec, arrays)
    return estimator
