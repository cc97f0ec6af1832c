"""Meshes from files and into them, by trimesh."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, Final

import numpy as np

from lamina.core.errors import DataError, LaminaError, require_extra
from lamina.core.modelfile import write_atomically
from lamina.fields.mesh import Mesh, check_mesh

SUFFIXES: Final = (".obj", ".off", ".ply", ".stl", ".glb")  # read and written
_OTHERS: Final = (".gltf", ".3mf", ".dae")
MOST_BYTES: Final = 1 << 31


def read_mesh(
    source: str | os.PathLike[str] | bytes, kind: str | None = None, where: str = "read_mesh"
) -> Mesh:
    """Read a triangle mesh.

    Parameters
    ----------
    source : str, path-like or bytes
        A .obj, .off, .ply, .stl or .glb file, or its content. Polygons are cut into triangles,
        several objects become one, vertices at the same place too.
    kind : str, optional
        The ending that a content would have; a path has its own.
    where : str
        The start of error sentences.

    Returns
    -------
    Mesh

    Raises
    ------
    DataError
        No such file, no mesh, or one without triangles.
    MissingExtraError
        trimesh is not installed.
    """
    trimesh: Any = require_extra("trimesh", "fields")
    name = "the data" if isinstance(source, bytes) else repr(os.fspath(source))
    suffix = (kind or "") if isinstance(source, bytes) else Path(source).suffix.lower()
    if suffix not in (*SUFFIXES, *_OTHERS):
        raise DataError(f"{where}: expected a mesh ({', '.join(SUFFIXES)}), got {name}.")
    try:
        if isinstance(source, bytes):
            data = source
        else:
            path = Path(source)
            if path.stat().st_size > MOST_BYTES:
                raise DataError(f"{where}: expected at most 2 GiB of mesh, got {name}.")
            data = path.read_bytes()
        # From memory: nothing that a file refers to beside it is opened
        found = trimesh.load(
            io.BytesIO(data), file_type=suffix[1:], force="mesh", process=False, skip_materials=True
        )
        vertices, faces = np.asarray(found.vertices), np.asarray(found.faces)
    except LaminaError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"{where}: expected a mesh that can be read, got {name}: {reason}."
        ) from error
    except Exception as error:  # a parser of a damaged file may raise anything
        raise DataError(
            f"{where}: expected a mesh, got {name}, which does not read as {suffix}: "
            f"{' '.join(str(error).split())[:120] or type(error).__name__}."
        ) from error
    return check_mesh(vertices, faces.reshape(-1, 3) if not faces.size else faces, where)


def check_mesh_suffix(path: str | os.PathLike[str], where: str) -> None:
    """Raise `DataError` unless a mesh can be written to a file of this name."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{where}: expected a name that ends in {', '.join(SUFFIXES)}, "
            f"got {os.fspath(path)!r}. Choose one of these."
        )


def write_mesh(path: str | os.PathLike[str], mesh: Mesh, where: str = "write_mesh") -> None:
    """Write a mesh, all or nothing, as the name's ending says.

    Parameters
    ----------
    path : str or path-like
        .obj, .off, .ply, .stl or .glb. An STL holds neither colours nor vertex normals.
    mesh : Mesh
    where : str

    Raises
    ------
    DataError
        The ending is none of these, or the file cannot be written.
    """
    trimesh: Any = require_extra("trimesh", "fields")
    check_mesh_suffix(path, where)
    made = trimesh.Trimesh(
        mesh.vertices,
        mesh.faces,
        vertex_normals=mesh.normals,
        vertex_colors=mesh.colours,
        process=False,
        validate=False,
    )
    data = made.export(file_type=Path(path).suffix.lower()[1:])
    write_atomically(path, [data.encode() if isinstance(data, str) else data], where)


def as_mesh(mesh: Any, where: str) -> Mesh:
    """Return what a user passed as a mesh: a file, a `Mesh`, (vertices, faces), or trimesh's.

    Raises
    ------
    ShapeError, DataError
        It is none of these, or no triangles are left of it.
    """
    if isinstance(mesh, str | os.PathLike | bytes):
        return read_mesh(mesh, where=where)
    if isinstance(mesh, tuple | list) and len(mesh) == 2:
        return check_mesh(mesh[0], mesh[1], where)
    if hasattr(mesh, "vertices") and hasattr(mesh, "faces"):
        return check_mesh(mesh.vertices, mesh.faces, where)
    raise DataError(
        f"{where}: expected a mesh, got {type(mesh).__name__}. "
        "Pass a file, a pair (vertices, faces), or an object that has these two."
    )
