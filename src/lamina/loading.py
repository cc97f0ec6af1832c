"""Load what any role of lamina saved."""

from __future__ import annotations

import importlib
import os
from typing import Any, Final

from lamina.core import modelfile
from lamina.core.errors import LaminaError, ModelFileError

# role -> where its loader is: a function, or method of a class, of (spec, arrays)
_LOADERS: Final = {
    "network": "lamina.core.network:Network.from_file_parts",
    "batch_ensemble": "lamina.core.batch_ensemble:BatchEnsemble.from_file_parts",
    "ensemble": "lamina.core.ensemble:Ensemble.from_file_parts",
    "mlp_classifier": "lamina.tabular.mlp_classifier:classifier_from_parts",
    "mlp_regressor": "lamina.tabular.mlp_regressor:regressor_from_parts",
    "tabular_classifier": "lamina.tabular.tabular_classifier:classifier_from_parts",
    "tabular_regressor": "lamina.tabular.tabular_regressor:regressor_from_parts",
    "audio_field": "lamina.fields.audio_field:AudioField.from_file_parts",
    "image_field": "lamina.fields.image_field:ImageField.from_file_parts",
    "radiance_field": "lamina.fields.radiance_field:RadianceField.from_file_parts",
    "shape_field": "lamina.fields.shape_field:ShapeField.from_file_parts",
    "volume_field": "lamina.fields.volume_field:VolumeField.from_file_parts",
}
# A forged specification may be of any form, and a loader that trips over it does no harm
_MISFITS: Final = (
    LaminaError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


def load(path: str | os.PathLike[str]) -> Any:
    """Load a model file and return the object it holds.

    Parameters
    ----------
    path : str or path-like
        A file that ``save`` wrote. It may come from anyone: nothing in it is executed.

    Returns
    -------
    object
        What was saved: a `lamina.Network`, `Ensemble` or `BatchEnsemble`, a `TabularClassifier` or
        `TabularRegressor` (``lamina fit`` writes them too), an `MLPClassifier` or `MLPRegressor`,
        or a field (`lamina.fields`).

    Raises
    ------
    ModelFileError
        If there is no such file, or it is damaged, of a newer format or of an unknown role.

    Examples
    --------
    >>> import lamina, tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "net.lamina"
    >>> lamina.Network(2, (3,), 1, rng=0).save(path)
    >>> lamina.load(path).n_params
    13
    """
    role, spec, arrays = modelfile.read(path)
    if role not in _LOADERS:
        raise ModelFileError(
            f"load: expected a file of a role in {', '.join(_LOADERS)}, got {role[:80]!r}. "
            "Upgrade lamina: pip install --upgrade lamina"
        )
    module, _, name = _LOADERS[role].partition(":")
    loader: Any = importlib.import_module(module)
    for part in name.split("."):
        loader = getattr(loader, part)
    try:
        return loader(spec, arrays)
    except _MISFITS as error:
        reason = " ".join(str(error).split())[:300].removeprefix("load: ")
        if isinstance(error, LookupError | AttributeError | RecursionError):
            reason = f"{type(error).__name__}: {reason}"
        raise ModelFileError(
            f"load {os.fspath(path)!r}: expected a {role} whose parts fit together, got: {reason}"
        ) from error
