"""TabularClassifier: classes of a raw table's rows, with calibrated probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils import compute_class_weight
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_array, column_or_1d

from lamina.core.errors import DataError
from lamina.tabular.calibrate import MOST_ROWS, find_temperature, member_temperature
from lamina.tabular.head import ClassHead, tempered
from lamina.tabular.learner import Learned
from lamina.tabular.recipe import find_recipe
from lamina.tabular.row_losses import check_labels, class_codes
from lamina.tabular.scores import class_scores
from lamina.tabular.table import Table
from lamina.tabular.tabular_base import BaseTabular, check_length
from lamina.tabular.tabular_file import from_parts
from lamina.tabular.target import as_target, is_multilabel

if TYPE_CHECKING:
    from lamina.tabular.stream import Streamed

Array = NDArray[Any]


class TabularClassifier(ClassifierMixin, BaseTabular):
    """Classifier of raw tables: no preprocessing to write, nothing to tune.

    Columns are numbers, categories, booleans, dates or text, with missing values; each becomes a
    trainable embedding. An ensemble of multilayer perceptrons learns on folds of the rows, in one
    pass of the engine, and its probabilities are calibrated on the rows each member did not see.

    Parameters
    ----------
    preset : {"fast", "default", "best"}, default "default"
        "fast" takes about a third of the time, "best" several times as long.
    neighbours : bool, optional
        Whether the network also reads the mean targets of the training rows nearest by the numeric
        columns. The model then keeps those columns' values, as ranks, and the targets of up to
        50,000 rows; a prediction takes two to four times as long. None lets a pilot on held-out
        rows decide, from 500 rows on (preset "fast": never). True skips the pilot. False is for
        models that must hold no training table: what remains of the rows is `background_` and the
        predictions out of fold.
    max_seconds : float > 0, optional
        Begin no further epoch after so long; members share the time. Results then depend on it.
    class_weight : dict or "balanced", optional
        As in scikit-learn; probabilities are then those of the weighted rows.
    types : mapping of column to use, optional
        Overrides what a column is for: "number", "category", "boolean", "date", "text", "drop".
    random_state : int, RandomState or None
        The seed: folds, first weights, order of rows.
    n_threads : int ≥ 1, optional
        None is all that the machine grants; see `lamina.info`.
    verbose : bool, default False
        Print a line an epoch.

    Attributes
    ----------
    classes_ : ndarray (n_classes,)
        In the order of `predict_proba`'s columns; for multi-label y the labels' numbers.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Where X had column names.
    ensemble_ : lamina.Ensemble
    inputs_ : the columns' way into the network
    neighbours_ : Neighbours or None
        The training rows kept, where neighbours are read; `report_.notes` says so.
    background_ : ndarray (at most 128, d_in) of float32
        Rows that it learnt from, encoded: what `explain` compares with.
    out_of_fold_proba_ : ndarray (n, n_classes)
        Calibrated probabilities of the training rows, each by members that did not see it.
    held_out_ : ndarray (n_held,)
        After `fit_files` only: the target of the rows that `out_of_fold_proba_` is then about.
    report_ : FitReport
        How the fit went; its `scores` are of the training rows, by members that did not see them.
    target_ : Target
        The target's column, where ``lamina fit`` made the model.
    histories_ : list of lamina.History
        The members' learning curves; not in model files.

    Raises
    ------
    DataError
        The table or the target cannot be learnt from; the sentence says why.

    References
    ----------
    Gorishniy et al. 2022, arXiv:2203.05556 (embeddings of numbers); Holzmüller et al. 2024,
    arXiv:2407.04491 (strong defaults); Guo et al. 2017, arXiv:1706.04599 (temperature).

    Examples
    --------
    >>> import lamina
    >>> X = {"size": [1.0, 2.0, 3.0, 4.0] * 10, "colour": ["red", "red", "blue", None] * 10}
    >>> y = ["small", "small", "large", "large"] * 10
    >>> model = lamina.TabularClassifier(random_state=0).fit(X, y)
    >>> str(model.predict({"size": [1.0], "colour": ["red"]})[0])
    'small'
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseTabular._parameter_constraints,
        "class_weight": [StrOptions({"balanced"}), Mapping, None],
    }

    class_weight: Mapping[Any, float] | str | None
    classes_: Array
    head_: ClassHead
    out_of_fold_proba_: NDArray[np.float64]
    held_out_: Array
    _role = "tabular_classifier"

    def __init__(
        self,
        preset: str = "default",
        *,
        neighbours: bool | None = None,
        max_seconds: float | None = None,
        class_weight: Mapping[Any, float] | str | None = None,
        types: Mapping[str, str] | None = None,
        random_state: Any = None,
        n_threads: int | None = None,
        verbose: bool | int = False,
    ) -> None:
        self.preset = preset
        self.neighbours = neighbours
        self.max_seconds = max_seconds
        self.class_weight = class_weight
        self.types = types
        self.random_state = random_state
        self.n_threads = n_threads
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> TabularClassifier:
        """Learn to predict y from the rows of X.

        Parameters
        ----------
        X : table-like, n rows
            A pandas, polars or pyarrow frame, a mapping of names to columns, a NumPy array.
        y : array-like (n,) of classes, or (n, n_labels) of 0 and 1
        sample_weight : array-like (n,), optional

        Returns
        -------
        self
        """
        self._validate_params()
        table = self._table_to_fit(X)
        if y is None:
            raise DataError(
                "TabularClassifier.fit: requires y to be passed, but the target y is None."
            )
        weight = self._weights(sample_weight, table)
        values = as_target(y, "TabularClassifier.fit")
        multilabel = is_multilabel(values, "TabularClassifier.fit")
        if multilabel:
            codes = check_array(values, dtype=np.int32)
            self.classes_ = np.arange(codes.shape[1])
            strata = None
        else:
            values = column_or_1d(values, warn=True)
            self.classes_, codes = np.unique(values, return_inverse=True)
            strata = codes.astype(np.int64)
        check_length(values, table, "TabularClassifier.fit")
        self._check_classes(codes, multilabel, weight)
        if self.class_weight is not None and not multilabel:
            each = compute_class_weight(self.class_weight, classes=self.classes_, y=values)
            weight = each[codes] * (1.0 if weight is None else weight)
            weight = weight / weight[weight > 0].mean()
        head = ClassHead(len(self.classes_), multilabel)
        target = codes.astype(np.float32 if multilabel else np.int32)
        learned, x = self._learn(table, target, head, strata, weight)
        output = self._like_ensemble(learned, x, multilabel)
        temperature = find_temperature(output, codes, weight, multilabel=multilabel)
        self.head_ = replace(head, temperature=temperature)
        self._keep_out_of_fold(output.astype(np.float32))
        if not multilabel:
            scores = class_scores(codes, self.out_of_fold_proba_)
            notes = (*self.report_.notes, *self._lonely(codes))
            self.report_ = replace(self.report_, scores=scores, notes=notes)
        return self

    def _lonely(self, codes: Array) -> list[str]:
        """Return a sentence on each class that one row alone holds."""
        alone = np.flatnonzero(np.bincount(codes) == 1)
        return [
            f"class {self.classes_[k : k + 1].tolist()[0]!r} has one row only, row "
            f"{int(np.argmax(codes == k))} of X: it is learnt, but no score is of it."
            for k in alone[:8]
        ]

    def _like_ensemble(self, learned: Learned, x: Array, multilabel: bool) -> NDArray[np.float64]:
        """Return the probabilities out of fold, single members', as sure as the ensemble's are."""
        rng = np.random.default_rng([self.report_.seed, 1])
        members = learned.ensemble.predict_members(x[rng.permutation(len(x))[:MOST_ROWS]])
        recipe = find_recipe(self.preset, "TabularClassifier.fit").for_rows(len(x))
        temperature = member_temperature(members, recipe.n_repeats(len(x)), multilabel=multilabel)
        return tempered(learned.out_of_fold, temperature, multilabel)

    def _keep_out_of_fold(self, output: NDArray[np.float32]) -> None:
        self._out_of_fold = output
        self.out_of_fold_proba_ = self.head_.probabilities(output)

    def _take_streamed(self, done: Streamed) -> dict[str, float]:
        assert isinstance(done.target.head, ClassHead)  # noqa: S101 (what a classification has)
        assert done.target.classes is not None  # noqa: S101
        self.classes_ = done.target.classes
        codes = done.held_values.astype(np.int64)
        temperature = find_temperature(done.held_output.astype(np.float64), codes, done.held_weight)
        self.head_ = replace(done.target.head, temperature=temperature)
        self.held_out_ = self.classes_[codes]
        self._keep_out_of_fold(done.held_output)
        return class_scores(codes, self.out_of_fold_proba_)

    def _check_classes(self, codes: Array, multilabel: bool, weight: Array | None) -> None:
        seen = codes if weight is None else codes[weight > 0]
        if not multilabel and len(np.unique(seen)) < 2:
            only = self.classes_[seen[:1]].tolist()[0]
            raise DataError(
                f"TabularClassifier.fit: expected at least two classes in y, got one class only, "
                f"{only!r}, in every row. Add rows of another class."
            )
        if not multilabel and len(self.classes_) > 20 and 2 * len(self.classes_) > len(codes):
            raise DataError(
                f"TabularClassifier.fit: expected classes that repeat, got {len(self.classes_)} "
                f"different values in {len(codes)} rows. Use TabularRegressor for numbers."
            )

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probability of every class, (n, n_classes), in `classes_`' order."""
        return self._probabilities(X, "TabularClassifier.predict_proba")

    def _probabilities(self, X: Any, where: str) -> NDArray[np.float64]:
        output = self._output(X, where)
        return self.head_.probabilities(output)

    def _output_names(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self.classes_)

    def _encoded_target(self, y: Any, table: Table, where: str) -> Array:
        values = as_target(y, where)
        check_length(values, table, where)
        if self.head_.multilabel:
            return check_labels(values, len(self.classes_), where)
        return class_codes(column_or_1d(values, warn=True), self.classes_, where)

    def predict(self, X: Any) -> Array:
        """Return the most probable class of every row, (n,); multi-label: (n, n_labels) of 0, 1."""
        p = self._probabilities(X, "TabularClassifier.predict")
        if self.head_.multilabel:
            return np.asarray((p > 0.5).astype(np.int64))
        return np.asarray(self.classes_[np.argmax(p, axis=1)])


def classifier_from_parts(spec: Mapping[str, Any], arrays: Mapping[str, Array]) -> Any:
    """Make a classifier of what `modelfile.read` returned; for `lamina.load`."""
    return from_parts(TabularClassifier, spec, arrays)
