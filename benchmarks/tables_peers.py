"""The methods of benchmarks/tables.py: each fits at its defaults and predicts.

A method is a function of (split, seed, n_threads) that returns a fitted model's constructor, fit
and predict as one `Fitted`. What each library wants of categories, dates and missing values is
given to it in its best fair form; nothing is tuned.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types
from tables_suite import Split


@dataclass(frozen=True)
class Fitted:
    """Predictions for the test rows, and what they took: seconds of wall time."""

    prediction: np.ndarray[Any, Any]
    fit_seconds: float
    predict_seconds: float


def plain(split: Split, most_levels: int | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the frames with dates as days, and text as pandas categories of the training rows."""
    train, test = split.X_train.copy(), split.X_test.copy()
    for name in train.columns:
        column = train[name]
        if types.is_datetime64_any_dtype(column):
            for frame in (train, test):
                frame[name] = frame[name].astype("int64") / 8.64e13
        elif types.is_bool_dtype(column):
            for frame in (train, test):
                frame[name] = frame[name].astype(float)
        elif not types.is_numeric_dtype(column):
            levels = column.dropna().astype(str).value_counts().index[:most_levels]
            dtype = pd.CategoricalDtype(sorted(levels))
            for frame in (train, test):
                text = frame[name].astype(object)
                frame[name] = text.where(text.isna(), text.astype(str)).astype(dtype)
    return train, test


def categories(frame: pd.DataFrame) -> list[str]:
    """Return the names of the categorical columns."""
    return [c for c in frame if isinstance(frame[c].dtype, pd.CategoricalDtype)]


def filled(frames: tuple[pd.DataFrame, pd.DataFrame], numbers: bool = False) -> Any:
    """Return the frames with missing categories as a level of text, and numbers by the median."""
    train, test = frames
    names = categories(train)
    for name in train.columns:
        for frame in (test, train):
            if name in names:
                text = frame[name].astype(object)
                frame[name] = text.where(text.notna(), "(missing)")
            elif numbers:
                frame[name] = frame[name].fillna(train[name].median())
    return train, test, names


def timed(model: Any, split: Split, train: Any, test: Any) -> Fitted:
    """Fit and predict, with the clock running."""
    began = time.perf_counter()
    model.fit(train, split.y_train)
    fitted = time.perf_counter()
    prediction = model.predict_proba(test) if split.is_classes else np.ravel(model.predict(test))
    return Fitted(np.asarray(prediction), fitted - began, time.perf_counter() - fitted)


def lamina_tables(preset: str) -> Callable[[Split, int, int], Fitted]:
    """Return the method of one preset of TabularClassifier and TabularRegressor."""

    def method(split: Split, seed: int, n_threads: int) -> Fitted:
        import lamina

        kind = lamina.TabularClassifier if split.is_classes else lamina.TabularRegressor
        model = kind(preset, random_state=seed, n_threads=n_threads)
        return timed(model, split, split.X_train, split.X_test)

    return method


def hist_gradient_boosting(split: Split, seed: int, n_threads: int) -> Fitted:
    """scikit-learn's; it takes at most 255 levels, so the rarest of more are missing values."""
    from sklearn import ensemble
    from threadpoolctl import threadpool_limits

    name = "Classifier" if split.is_classes else "Regressor"
    kind = getattr(ensemble, f"HistGradientBoosting{name}")
    with threadpool_limits(n_threads):
        model = kind(random_state=seed, categorical_features="from_dtype")
        return timed(model, split, *plain(split, 250))


def scaled_mlp(split: Split, seed: int, n_threads: int) -> Fitted:
    """scikit-learn's MLP behind one-hot categories and standardised numbers and target."""
    from sklearn.compose import TransformedTargetRegressor, make_column_transformer
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler
    from threadpoolctl import threadpool_limits

    train, test, names = filled(plain(split), numbers=True)
    one_hot = OneHotEncoder(
        handle_unknown="infrequent_if_exist", min_frequency=10, sparse_output=False
    )
    numbers = [c for c in train if c not in names]
    prepare = make_column_transformer((StandardScaler(), numbers), (one_hot, names))
    model: Any = MLPClassifier(random_state=seed)
    if not split.is_classes:
        model = TransformedTargetRegressor(
            MLPRegressor(random_state=seed), transformer=StandardScaler()
        )
    with threadpool_limits(n_threads):
        return timed(make_pipeline(prepare, model), split, train, test)


def lightgbm(split: Split, seed: int, n_threads: int) -> Fitted:
    """LightGBM; it refuses some characters in names of columns."""
    import lightgbm as library

    kind = library.LGBMClassifier if split.is_classes else library.LGBMRegressor
    model = kind(random_state=seed, n_jobs=n_threads, verbose=-1)
    train, test = (f.set_axis([f"c{i}" for i in range(f.shape[1])], axis=1) for f in plain(split))
    return timed(model, split, train, test)


def xgboost(split: Split, seed: int, n_threads: int) -> Fitted:
    """XGBoost with its own treatment of categories."""
    import xgboost as library

    kind = library.XGBClassifier if split.is_classes else library.XGBRegressor
    model = kind(random_state=seed, n_jobs=n_threads, enable_categorical=True)
    return timed(model, split, *plain(split))


def catboost(split: Split, seed: int, n_threads: int) -> Fitted:
    """CatBoost; missing categories are a level of their own."""
    import catboost as library

    train, test, names = filled(plain(split))
    kind = library.CatBoostClassifier if split.is_classes else library.CatBoostRegressor
    model = kind(
        random_seed=seed,
        thread_count=n_threads,
        verbose=0,
        cat_features=names,
        allow_writing_files=False,
    )
    return timed(model, split, train, test)


def pytabkit(name: str) -> Callable[[Split, int, int], Fitted]:
    """Return RealMLP-TD or TabM from pytabkit; they take no missing numbers."""

    def method(split: Split, seed: int, n_threads: int) -> Fitted:
        import pytabkit as library

        kind = getattr(library, f"{name}_{'Classifier' if split.is_classes else 'Regressor'}")
        train, test, names = filled(plain(split), numbers=True)
        for frame in (train, test):
            frame[names] = frame[names].astype("category")
        model = kind(random_state=seed, device="cpu", n_threads=n_threads)
        return timed(model, split, train, test)

    return method


METHODS: dict[str, tuple[Callable[[Split, int, int], Fitted], str]] = {
    "lamina-fast": (lamina_tables("fast"), "lamina"),
    "lamina": (lamina_tables("default"), "lamina"),
    "lamina-best": (lamina_tables("best"), "lamina"),
    "hgb": (hist_gradient_boosting, "scikit-learn"),
    "mlp": (scaled_mlp, "scikit-learn"),
    "lightgbm": (lightgbm, "lightgbm"),
    "xgboost": (xgboost, "xgboost-cpu"),
    "catboost": (catboost, "catboost"),
    "realmlp-td": (pytabkit("RealMLP_TD"), "pytabkit"),
    "tabm-d": (pytabkit("TabM_D"), "pytabkit"),
}


def installed(method: str) -> str:
    """Return the version of a method's library; PackageNotFoundError if there is none."""
    return version(METHODS[method][1])
