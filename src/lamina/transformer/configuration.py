"""From a configuration to a model without weights: PyTorch's meta device knows shapes only.

Nothing is downloaded, and no code that a configuration names is run: the model's class is one of
transformers' own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lamina.core.errors import DataError, SpecError, require_extra
from lamina.transformer.presets import PRESETS

# Beyond these a wrong digit is likelier than a model, and building it would never end.
MOST_LAYERS: Final = 4096
MOST: Final = 2**31
_HEADS: Final = (
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
    "MODEL_FOR_CAUSAL_LM_MAPPING",
    "MODEL_FOR_MASKED_LM_MAPPING",
    "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING",
    "MODEL_MAPPING",
)


def as_model(source: Any, where: str) -> tuple[Any, str]:
    """Return a model, on the meta device unless `source` is one already, and what to call it.

    Parameters
    ----------
    source : torch.nn.Module, transformers configuration, mapping, str or Path
        See `anatomy`.
    where : str
        What an error names.

    Raises
    ------
    DataError
        If a file is missing or is no configuration.
    SpecError
        If transformers cannot build the model.
    """
    require_extra("torch", "torch")
    if callable(getattr(source, "named_modules", None)):
        return source, type(source).__name__
    if hasattr(source, "model_type") and callable(getattr(source, "to_dict", None)):
        return _build(source, where), str(source.model_type)
    if isinstance(source, Mapping):
        return _build(_config(dict(source), where), where), str(source.get("model_type"))
    if not isinstance(source, str | os.PathLike):
        raise SpecError(
            f"{where}: expected a model, a configuration or a path, got {type(source).__name__}. "
            "Pass what from_pretrained returns, a folder with config.json, or a built-in name."
        )
    name = os.fspath(source)
    path = Path(name)
    if path.suffix == ".gguf" and path.is_file():
        return _build(_gguf_config(path, where), where), path.stem
    if path.exists():
        settings = _read(path / "config.json" if path.is_dir() else path, where)
        called = path if path.is_dir() else path.parent
        return _build(_config(settings, where), where), called.resolve().name
    if name.lower() in PRESETS:
        return _build(_config(PRESETS[name.lower()][1], where), where), name.lower()
    raise DataError(
        f"{where}: expected a folder, a config.json, a .gguf file or a built-in name, got "
        f"{name!r}, which is none. Built in are {', '.join(PRESETS)}; nothing is downloaded."
    )


def _read(path: Path, where: str) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{where}: expected a configuration in JSON at {str(path)!r}, got "
            f"{_first_line(error)}. Pass a model's config.json or the folder that holds it."
        ) from error
    if not isinstance(settings, dict):
        raise DataError(
            f"{where}: expected a JSON object in {str(path)!r}, got {type(settings).__name__}. "
            "Pass a model's config.json."
        )
    return settings


def _config(settings: Mapping[str, Any], where: str) -> Any:
    """Return the configuration of transformers with these settings."""
    require_extra("transformers", "torch")
    from transformers import CONFIG_MAPPING

    kind = settings.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise SpecError(
            f"{where}: expected a model_type that transformers knows, got {kind!r}. Pass the "
            "config.json of a Transformer, or a newer transformers."
        )
    _check_sizes(settings, where)
    try:
        return CONFIG_MAPPING[kind].from_dict(dict(settings))
    except Exception as error:  # whatever a file's wrong bytes make transformers raise
        raise _refused(kind, error, where) from error


def _gguf_config(path: Path, where: str) -> Any:
    require_extra("transformers", "torch")
    from transformers import AutoConfig

    require_extra("gguf", "torch")
    try:
        return AutoConfig.from_pretrained(
            str(path.parent), gguf_file=path.name, local_files_only=True
        )
    except Exception as error:
        raise _refused(path.name, error, where) from error


def _check_sizes(settings: Any, where: str, name: str = "") -> None:
    """Refuse sizes that are negative or absurd."""
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            _check_sizes(value, where, str(key))
    elif isinstance(settings, list):
        for value in settings[:MOST_LAYERS]:
            _check_sizes(value, where, name)
    elif isinstance(settings, int | float) and not isinstance(settings, bool):
        most = MOST_LAYERS if name.endswith(("layers", "n_layer")) else MOST
        least = 0 if name.endswith(("size", "layers", "heads", "n_embd", "n_layer")) else -MOST
        if not least <= settings <= most:
            raise SpecError(
                f"{where}: expected {name} from {least} to {most}, got {settings}. "
                "Correct the configuration."
            )


def _build(config: Any, where: str) -> Any:
    """Return the model of a configuration on the meta device, in the configuration's dtype."""
    import torch

    kind = _model_class(config, where)
    dtype = getattr(config, "dtype", None)
    try:
        with torch.device("meta"):
            return kind._from_config(config, dtype=dtype if dtype is not None else torch.float32)
    except Exception as error:
        raise _refused(str(config.model_type), error, where) from error


def _model_class(config: Any, where: str) -> Any:
    """Return the class that the configuration names, else the first head that fits it.

    Only transformers' own: the code that an ``auto_map`` names is not looked at.
    """
    import transformers

    for name in getattr(config, "architectures", None) or ():
        named = getattr(transformers, name, None) if isinstance(name, str) else None
        if getattr(named, "config_class", None) is type(config):
            return named
    for mapping in _HEADS:
        known = getattr(transformers, mapping, {})
        if type(config) in known:
            found = known[type(config)]
            return found[0] if isinstance(found, tuple | list) else found
    raise SpecError(
        f"{where}: expected the configuration of a Transformer, got {type(config).__name__}, for "
        "which transformers has no model. Pass another configuration."
    )


def _refused(what: str, error: Exception, where: str) -> SpecError:
    return SpecError(
        f"{where}: expected a configuration that transformers can build, got {what!r}, for which "
        f"it says: {_first_line(error)}. Correct the configuration."
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200].rstrip(".")
