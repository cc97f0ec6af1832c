"""The exceptions of lamina.

Every one's text is a sentence of the form ``where: expected ..., got .... What to do.``
"""

from __future__ import annotations

import importlib
from types import ModuleType


class LaminaError(Exception):
    """Base of every error that lamina raises on purpose; its text is one clear sentence."""


class ShapeError(LaminaError, ValueError):
    """An array has the wrong number of dimensions, rows or columns."""


class SpecError(LaminaError, ValueError):
    """A name, size or option that describes a network, a loss or a run is not a valid one."""


class DataError(LaminaError, ValueError):
    """The values of an array or a table cannot be used: NaN, infinity, text, out of range."""


class ModelFileError(LaminaError, ValueError):
    """A model file is unreadable, truncated, tampered with or of a newer format."""


class DivergenceError(LaminaError, ArithmeticError):
    """Training met a loss that is not finite."""


class MissingExtraError(LaminaError, ImportError):
    """An optional package that a feature needs is not installed."""


def require_extra(module: str, extra: str) -> ModuleType:
    """Import an optional package, or say in one sentence how to install it.

    Parameters
    ----------
    module : str
        Dotted name of the module to import, for example ``"onnx"``.
    extra : str
        The extra of lamina that brings it, for example ``"onnx"`` for ``lamina[onnx]``.

    Returns
    -------
    module
        The imported module.

    Raises
    ------
    MissingExtraError
        If the package is not installed. Any other import failure passes through unchanged.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise MissingExtraError(
            f"lamina: expected the package '{package}', got an environment without it. "
            f'Install it with: pip install "lamina[{extra}]".'
        ) from error
