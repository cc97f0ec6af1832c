"""lamina: multilayer perceptrons at the speed of the CPU you already have.

Public names are looked up when first used, so that ``import lamina`` costs almost nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lamina.late import look_up

__version__ = "0.1.0"

# The public names and the modules that hold them: each is a promise (tests/test_public_names.py).
_HOME = {
    # network and training
    "Network": "lamina.core.network",
    "train": "lamina.core.trainer",
    "BatchEnsemble": "lamina.core.batch_ensemble",
    "Ensemble": "lamina.core.ensemble",
    "train_many": "lamina.core.many",
    "History": "lamina.core.history",
    "EpochReport": "lamina.core.history",
    "info": "lamina.core.engine",
    # encodings of the input
    "HashGrid": "lamina.core.encodings",
    "Fourier": "lamina.core.encodings",
    "RandomFourier": "lamina.core.encodings",
    "OneBlob": "lamina.core.encodings",
    "ColumnEmbeddings": "lamina.core.column_embeddings",
    # optimisers and learning-rate schedules
    "AdamW": "lamina.core.optim",
    "Adam": "lamina.core.optim",
    "SGD": "lamina.core.optim",
    "LBFGS": "lamina.core.optim",
    "constant": "lamina.core.schedules",
    "cosine": "lamina.core.schedules",
    "linear": "lamina.core.schedules",
    "step_decay": "lamina.core.schedules",
    "exponential": "lamina.core.schedules",
    "one_cycle": "lamina.core.schedules",
    "inverse_sqrt": "lamina.core.schedules",
    # losses
    "SquaredError": "lamina.core.losses",
    "AbsoluteError": "lamina.core.losses",
    "Huber": "lamina.core.losses",
    "BinaryCrossEntropy": "lamina.core.losses",
    "CrossEntropy": "lamina.core.losses",
    "Poisson": "lamina.core.losses",
    "Pinball": "lamina.core.losses",
    "Eikonal": "lamina.core.derivative_losses",
    "Sobolev": "lamina.core.derivative_losses",
    "JetLoss": "lamina.core.jet_loss",
    # estimators
    "MLPClassifier": "lamina.tabular.mlp",
    "MLPRegressor": "lamina.tabular.mlp",
    "TabularClassifier": "lamina.tabular.tabular_classifier",
    "TabularRegressor": "lamina.tabular.tabular_regressor",
    # in and out
    "load": "lamina.loading",
    "to_onnx": "lamina.bridges.onnx",
    "to_torch": "lamina.bridges.torch",
    "from_torch": "lamina.bridges.torch",
    "to_sklearn": "lamina.bridges.sklearn",
    "from_sklearn": "lamina.bridges.sklearn",
    # errors
    "LaminaError": "lamina.core.errors",
    "ShapeError": "lamina.core.errors",
    "SpecError": "lamina.core.errors",
    "DataError": "lamina.core.errors",
    "DivergenceError": "lamina.core.errors",
    "ModelFileError": "lamina.core.errors",
    "MissingExtraError": "lamina.core.errors",
}

# Rooms that are used by their own name, as in lamina.theory.separability(x, y)
_ROOMS = ("fields", "memories", "theory", "transformer")

__all__ = ["__version__", *_HOME]  # noqa: PLE0604 (all are strings)

if TYPE_CHECKING:
    from lamina.bridges.onnx import to_onnx as to_onnx
    from lamina.bridges.sklearn import from_sklearn as from_sklearn
    from lamina.bridges.sklearn import to_sklearn as to_sklearn
    from lamina.bridges.torch import from_torch as from_torch
    from lamina.bridges.torch import to_torch as to_torch
    from lamina.core.batch_ensemble import BatchEnsemble as BatchEnsemble
    from lamina.core.column_embeddings import ColumnEmbeddings as ColumnEmbeddings
    from lamina.core.derivative_losses import Eikonal as Eikonal
    from lamina.core.derivative_losses import Sobolev as Sobolev
    from lamina.core.encodings import Fourier as Fourier
    from lamina.core.encodings import HashGrid as HashGrid
    from lamina.core.encodings import OneBlob as OneBlob
    from lamina.core.encodings import RandomFourier as RandomFourier
    from lamina.core.engine import info as info
    from lamina.core.ensemble import Ensemble as Ensemble
    from lamina.core.errors import DataError as DataError
    from lamina.core.errors import DivergenceError as DivergenceError
    from lamina.core.errors import LaminaError as LaminaError
    from lamina.core.errors import MissingExtraError as MissingExtraError
    from lamina.core.errors import ModelFileError as ModelFileError
    from lamina.core.errors import ShapeError as ShapeError
    from lamina.core.errors import SpecError as SpecError
    from lamina.core.history import EpochReport as EpochReport
    from lamina.core.history import History as History
    from lamina.core.jet_loss import JetLoss as JetLoss
    from lamina.core.losses import AbsoluteError as AbsoluteError
    from lamina.core.losses import BinaryCrossEntropy as BinaryCrossEntropy
    from lamina.core.losses import CrossEntropy as CrossEntropy
    from lamina.core.losses import Huber as Huber
    from lamina.core.losses import Pinball as Pinball
    from lamina.core.losses import Poisson as Poisson
    from lamina.core.losses import SquaredError as SquaredError
    from lamina.core.many import train_many as train_many
    from lamina.core.network import Network as Network
    from lamina.core.optim import LBFGS as LBFGS
    from lamina.core.optim import SGD as SGD
    from lamina.core.optim import Adam as Adam
    from lamina.core.optim import AdamW as AdamW
    from lamina.core.schedules import constant as constant
    from lamina.core.schedules import cosine as cosine
    from lamina.core.schedules import exponential as exponential
    from lamina.core.schedules import inverse_sqrt as inverse_sqrt
    from lamina.core.schedules import linear as linear
    from lamina.core.schedules import one_cycle as one_cycle
    from lamina.core.schedules import step_decay as step_decay
    from lamina.core.trainer import train as train
    from lamina.loading import load as load
    from lamina.tabular.mlp import MLPClassifier as MLPClassifier
    from lamina.tabular.mlp import MLPRegressor as MLPRegressor
    from lamina.tabular.tabular_classifier import TabularClassifier as TabularClassifier
    from lamina.tabular.tabular_regressor import TabularRegressor as TabularRegressor


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"lamina.{name}")
    return look_up(__name__, _HOME, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_ROOMS})
