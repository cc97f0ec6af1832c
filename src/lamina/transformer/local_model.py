"""A model's weights and tokenizer from a folder or a .gguf file; nothing is downloaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lamina.core.errors import DataError, require_extra
from lamina.transformer.configuration import as_model


def load_local(path: str | os.PathLike[str], where: str, dtype: Any = None) -> Any:
    """Return a transformers model with its weights, in evaluation mode.

    Parameters
    ----------
    path : str or Path
        A folder with config.json and .safetensors files, or a .gguf file.
    where : str
        What an error names.
    dtype : torch.dtype, optional
        None: as the configuration says.

    Raises
    ------
    DataError
        If there is no such folder, or transformers cannot read it. Weights in pickles are not.
    """
    place = Path(path)
    gguf = place.suffix == ".gguf" and place.is_file()
    if not gguf and not (place.is_dir() and (place / "config.json").is_file()):
        raise DataError(
            f"{where}: expected a folder with config.json and weights, or a .gguf file, got "
            f"{str(path)!r}. Pass a model on this machine; nothing is downloaded."
        )
    require_extra("transformers", "torch")
    shapes, _ = as_model(path, where)  # which class it is
    options: dict[str, Any] = {"local_files_only": True, "dtype": dtype or shapes.dtype}
    if gguf:
        options["gguf_file"] = place.name
    else:
        options["use_safetensors"] = True
    try:
        model = type(shapes).from_pretrained(str(place.parent if gguf else place), **options)
    except Exception as error:  # whatever wrong bytes make transformers raise
        text = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise DataError(
            f"{where}: expected weights that transformers can read in {str(path)!r}, got: {text}. "
            "Pass a whole model, in safetensors or .gguf."
        ) from error
    return model.eval()


def load_tokenizer(path: str | os.PathLike[str], where: str) -> Any:
    """Return the tokenizer of a folder or a .gguf file.

    Parameters
    ----------
    path : str or Path
    where : str
        What an error names.

    Raises
    ------
    DataError
        If there is none, or transformers cannot read it.
    """
    place = Path(path)
    transformers = require_extra("transformers", "torch")
    options: dict[str, Any] = {"local_files_only": True}
    if place.suffix == ".gguf":
        options["gguf_file"] = place.name
    try:
        return transformers.AutoTokenizer.from_pretrained(
            str(place.parent if place.suffix == ".gguf" else place), **options
        )
    except Exception as error:  # whatever wrong bytes make transformers raise
        text = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise DataError(
            f"{where}: expected a tokenizer that transformers can read in {str(path)!r}, got: "
            f"{text}. Save it there with tokenizer.save_pretrained."
        ) from error
