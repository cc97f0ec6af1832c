"""Fields: images, sounds, shapes and scenes stored in the weights of a network.

Public names are looked up when first used: each kind of signal imports only what it needs.
"""

from __future__ import annotations

from typing import Any

from lamina.late import look_up

# The public names and the modules that hold them, in the order of docs/fields.md.
_HOME: dict[str, str] = {
    "ImageField": "lamina.fields.image_field",
    "AudioField": "lamina.fields.audio_field",
    "ShapeField": "lamina.fields.shape_field",
    "RadianceField": "lamina.fields.radiance_field",
    "Camera": "lamina.fields.cameras",
    "Views": "lamina.fields.cameras",
    "read_views": "lamina.fields.cameras",
    "ShapeErrors": "lamina.fields.shape_field",
    "Mesh": "lamina.fields.mesh",
    "VolumeField": "lamina.fields.volume_field",
    "compress": "lamina.fields.compression",
    "FitProgress": "lamina.fields.fit",
    "FieldReport": "lamina.fields.fit",
    "write_animation": "lamina.fields.animation",
    "read_image": "lamina.fields.image_file",
    "write_image": "lamina.fields.image_file",
    "read_audio": "lamina.fields.audio_file",
    "write_audio": "lamina.fields.audio_file",
    "read_mesh": "lamina.fields.mesh_file",
    "write_mesh": "lamina.fields.mesh_file",
    "read_volume": "lamina.fields.volume_file",
    "write_volume": "lamina.fields.volume_file",
}

__all__ = [*_HOME]  # noqa: PLE0604 (all are strings)


def __getattr__(name: str) -> Any:
    return look_up(__name__, _HOME, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
