"""Patches: edits in a safetensors file, small, and valid for one model's weights only."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from lamina.core.errors import ModelFileError
from lamina.core.modelfile import write_atomically
from lamina.memories.edits import Edit, Kind, matrix
from lamina.memories.live_model import LiveModel

FORMAT: Final = "lamina memories patch"
VERSION: Final = 1
MOST_BYTES: Final = 1 << 28  # a fact of the widest models takes a few hundred kilobytes


@dataclass(frozen=True)
class Patch:
    """What a file of edits holds: the fingerprints of the model before and after, and the edits."""

    before: str
    after: str
    edits: tuple[Edit, ...]


def write_patch(
    path: str | os.PathLike[str], edits: Sequence[Edit], before: str, after: str, where: str
) -> None:
    """Write a patch, all or nothing."""
    from safetensors.torch import save

    rows = [
        {"kind": edit.kind, "layer": edit.layer, "neuron": edit.neuron, "text": edit.text}
        for edit in edits
    ]
    tensors = {
        f"{i}.{j}": vector.contiguous()
        for i, edit in enumerate(edits)
        for j, vector in enumerate(edit.vectors)
    }
    document = {"version": VERSION, "before": before, "after": after, "edits": rows}
    data = save(tensors, metadata={"format": FORMAT, "patch": json.dumps(document)})
    write_atomically(path, [data], where)


def read_patch(path: str | os.PathLike[str], live: LiveModel, where: str) -> Patch:
    """Read a patch for a model; every size is checked before anything is made of it."""
    from safetensors import SafetensorError, safe_open

    target = Path(path)

    def damaged(reason: object) -> ModelFileError:
        return ModelFileError(
            f"{where}: expected a patch that Editor.save wrote in {str(target)!r}, got: {reason}. "
            "Get the file again."
        )

    try:
        if target.stat().st_size > MOST_BYTES:
            raise damaged(f"{target.stat().st_size:,} bytes")
        with safe_open(target, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise damaged("another kind of file")
            document = json.loads(metadata["patch"])
            if document["version"] != VERSION:
                raise damaged(f"format version {document['version']!r}, not {VERSION}")
            before, after = document["before"], document["after"]
            if not isinstance(before, str) or not isinstance(after, str):
                raise damaged("no fingerprints")
            edits = tuple(
                _read_edit(file, i, row, live, damaged) for i, row in enumerate(document["edits"])
            )
    except FileNotFoundError as error:
        raise ModelFileError(
            f"{where}: expected a patch, got no file {str(target)!r}. Check the path."
        ) from error
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise damaged(
            str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        ) from error
    return Patch(before, after, edits)


def _read_edit(file: Any, i: int, row: dict[str, Any], live: LiveModel, damaged: Any) -> Edit:
    kind, layer, neuron, text = (row[name] for name in ("kind", "layer", "neuron", "text"))
    if kind not in get_args(Kind) or not isinstance(text, str):
        raise damaged(f"an edit of kind {kind!r:.40}")
    if type(layer) is not int or not 0 <= layer < len(live.blocks):
        raise damaged(f"layer {layer!r:.40} of {len(live.blocks)}")
    d_model, d_ff = matrix(live, layer).shape
    is_fact = kind == "fact"
    if is_fact != (neuron is None) or not (is_fact or (type(neuron) is int and 0 <= neuron < d_ff)):
        raise damaged(f"neuron {neuron!r:.40} of {d_ff}")
    vectors = []
    for j, width in enumerate((d_model, d_ff) if is_fact else (d_model,)):
        shape = file.get_slice(f"{i}.{j}").get_shape()
        if shape != [width]:
            raise damaged(f"a vector of shape {shape}, not [{width}]")
        vector = file.get_tensor(f"{i}.{j}")
        if not vector.is_floating_point() or not vector.isfinite().all():
            raise damaged("numbers that are not finite")
        vectors.append(vector)
    return Edit(i + 1, kind, layer, neuron, text, tuple(vectors))
