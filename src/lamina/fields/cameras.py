"""Posed pictures: cameras, the rays of their pixels, and the files that describe them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core.checks import check_number
from lamina.core.engine import require_memory
from lamina.core.errors import DataError, ShapeError

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]

MOST_SIDE: Final = 1 << 14  # pixels
MOST_FRAMES: Final = 1 << 14
MOST_JSON: Final = 1 << 26  # bytes
ROTATION_TOLERANCE: Final = 1e-2


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks along its -z axis, x to the right and y up (OpenGL's axes).

    Attributes
    ----------
    matrix : float64 array (3, 4)
        From camera to world: a rotation, and where the eye stands.
    width, height : int
        Pixels.
    focal : (float, float)
        Along x and y, in pixels.
    centre : (float, float)
        Where the axis meets the picture, in pixels from its upper left corner.
    """

    matrix: Float64
    width: int
    height: int
    focal: tuple[float, float]
    centre: tuple[float, float]

    @property
    def eye(self) -> Float64:
        """Where it stands, (3,)."""
        return self.matrix[:, 3]

    def rays(self, columns: Array, rows: Array) -> tuple[Float64, Float64]:
        """Return origins and unit directions (n, 3) of places on the picture, in pixels.

        The middle of the upper left pixel is at column 0.5, row 0.5.
        """
        x = (columns - self.centre[0]) / self.focal[0]
        y = (self.centre[1] - rows) / self.focal[1]
        ahead = np.stack([x, y, -np.ones_like(x)], axis=1) @ self.matrix[:, :3].T
        ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
        return np.broadcast_to(self.eye, ahead.shape), ahead

    def all_rays(self) -> tuple[Float64, Float64]:
        """Return the rays through the middles of all pixels, row by row."""
        rows, columns = np.mgrid[: self.height, : self.width] + 0.5
        return self.rays(columns.ravel(), rows.ravel())

    def resized(self, height: int, width: int) -> Camera:
        """Return the same view in so many pixels."""
        across, down = width / self.width, height / self.height
        return Camera(
            self.matrix,
            width,
            height,
            (self.focal[0] * across, self.focal[1] * down),
            (self.centre[0] * across, self.centre[1] * down),
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "matrix": self.matrix.tolist(),
            "size": [self.width, self.height],
            "focal": list(self.focal),
            "centre": list(self.centre),
        }

    @classmethod
    def from_json(cls, told: Any, where: str) -> Camera:
        """Return what `to_json` told; nothing in it is trusted."""
        if not isinstance(told, dict) or set(told) != {"matrix", "size", "focal", "centre"}:
            raise DataError(f"{where}: expected a camera, got {told!r:.60}.")
        size = _numbers(told["size"], 2, "size", where)
        sides = [check_number(s, "size", where, 1, MOST_SIDE) for s in size]
        focal = _numbers(told["focal"], 2, "focal", where)
        centre = _numbers(told["centre"], 2, "centre", where)
        matrix = as_pose(told["matrix"], where, "a camera")
        width, height = (int(s) for s in sides)
        return cls(matrix, width, height, _focal(focal, where), (centre[0], centre[1]))


@dataclass(frozen=True)
class Views:
    """Pictures of one scene, and the cameras that took them.

    Attributes
    ----------
    pixels : uint8 array (n, height, width, 3 or 4)
        Four channels: the last is how much the scene covers a pixel, over which colours are not
        multiplied.
    cameras : tuple of n Camera
    names : tuple of n str
    """

    pixels: npt.NDArray[np.uint8]
    cameras: tuple[Camera, ...]
    names: tuple[str, ...]

    def colours(self, index: Array, background: Array) -> Array:
        """Return float32 (n, 3) in [0, 1] of flat pixel numbers, over backgrounds (n, 3)."""
        flat = self.pixels.reshape(-1, self.pixels.shape[3])[index].astype(np.float32) / 255.0
        if flat.shape[1] == 3:
            return flat
        cover = flat[:, 3:]
        return np.asarray(flat[:, :3] * cover + (1 - cover) * background, np.float32)


def as_pose(matrix: Any, where: str, name: str) -> Float64:
    """Return a camera-to-world matrix (3, 4) of one (3, 4) or (4, 4), its axes made exact.

    Raises
    ------
    DataError
        It is no matrix, not finite, or no rotation.
    """
    try:
        pose = np.asarray(matrix, np.float64)
    except (TypeError, ValueError):
        pose = np.empty(0)
    if pose.shape not in ((3, 4), (4, 4)):
        raise DataError(
            f"{where}: expected {name} with a matrix of 4 x 4 numbers, camera to world, got shape "
            f"{pose.shape}."
        )
    turn, lengths = pose[:3, :3], np.linalg.norm(pose[:3, :3], axis=0)
    with np.errstate(all="ignore"):
        unit = turn / lengths
        off = np.abs(unit.T @ unit - np.eye(3)).max() if np.isfinite(pose).all() else np.inf
        turned = float(np.linalg.det(unit)) if np.isfinite(off) else np.nan
    if not (off < ROTATION_TOLERANCE and turned > 0):
        raise DataError(
            f"{where}: expected {name} with axes at right angles (a rotation, x right, y up, z "
            "backward), got a matrix that is singular, skewed, mirrored or not finite. "
            "Give the camera-to-world matrix of OpenGL's axes."
        )
    left, _, right = np.linalg.svd(unit)
    return np.concatenate([left @ right, pose[:3, 3:]], axis=1)


def as_views(scene: Any, where: str) -> Views:
    """Return what a user passed as posed pictures.

    Parameters
    ----------
    scene : Views, path of a transforms.json, or (pixels, matrices, focal)
        pixels uint8 (n, height, width, 3 or 4), matrices (n, 4, 4), focal in pixels.
    where : str
    """
    if isinstance(scene, Views):
        return scene
    if isinstance(scene, str | os.PathLike):
        return read_views(scene, where)
    if not isinstance(scene, tuple | list) or len(scene) != 3:
        raise DataError(
            f"{where}: expected the path of a transforms.json or (pixels, matrices, focal), got "
            f"{type(scene).__name__}."
        )
    pixels = np.asarray(scene[0])
    if (
        pixels.ndim != 4
        or pixels.shape[3] not in (3, 4)
        or pixels.dtype != np.uint8
        or not pixels.size
    ):
        raise ShapeError(
            f"{where}: expected pixels as uint8 of shape (n, height, width, 3 or 4), got "
            f"{pixels.dtype} {pixels.shape}."
        )
    poses = scene[1]
    if not isinstance(poses, Sequence | np.ndarray) or len(poses) != len(pixels):
        raise ShapeError(f"{where}: expected a matrix for each of {len(pixels)} pictures.")
    n, height, width, _ = pixels.shape
    focal = check_number(scene[2], "focal", where, 0.0)
    cameras = tuple(
        Camera(
            as_pose(pose, where, f"picture {i}"),
            width,
            height,
            _focal((focal, focal), where),
            (width / 2, height / 2),
        )
        for i, pose in enumerate(poses)
    )
    return Views(pixels, cameras, tuple(str(i) for i in range(n)))


def read_views(path: str | os.PathLike[str], where: str = "read_views") -> Views:
    """Read a set of posed pictures: a transforms.json, and the pictures that it names.

    Parameters
    ----------
    path : str or path-like
        ``camera_angle_x`` or ``fl_x`` (and ``fl_y``, ``cx``, ``cy``) in the file or in a frame;
        ``frames`` with ``file_path``, relative to the file and perhaps without its ending, and
        ``transform_matrix``, camera to world in OpenGL's axes.
    where : str
        The start of error sentences.

    Returns
    -------
    Views

    Raises
    ------
    DataError
        The file or a picture is missing or damaged, a camera is missing or singular, or sizes
        differ.
    """
    from lamina.fields.image_file import read_image

    told = _json_of(Path(path), where)
    frames = told.get("frames")
    if not isinstance(frames, list) or not frames or len(frames) > MOST_FRAMES:
        raise DataError(f"{where}: expected frames in {os.fspath(path)!r}, got none.")
    pixels: Array | None = None
    cameras, names = [], []
    for i, frame in enumerate(frames):
        if not isinstance(frame, dict) or "transform_matrix" not in frame:
            raise DataError(f"{where}: expected frame {i} with a transform_matrix, got none.")
        name = frame.get("file_path")
        if not isinstance(name, str):
            raise DataError(f"{where}: expected frame {i} with a file_path, got {name!r:.60}.")
        image = _as_bytes(read_image(_picture_of(Path(path).parent, name, i, where), where))
        if pixels is None:
            require_memory(len(frames) * image.size)
            pixels = np.empty((len(frames), *image.shape), np.uint8)
        if image.shape != pixels.shape[1:]:
            raise DataError(
                f"{where}: expected all pictures to be {_size(pixels[0])}, as the first is, got "
                f"{_size(image)} in frame {i}, {name!r:.80}."
            )
        pixels[i] = image
        pose = as_pose(frame["transform_matrix"], where, f"frame {i}")
        cameras.append(_camera({**told, **frame}, pose, image.shape, where))
        names.append(name)
    assert pixels is not None  # noqa: S101
    return Views(pixels, tuple(cameras), tuple(names))


def _json_of(path: Path, where: str) -> dict[str, Any]:
    try:
        if path.stat().st_size > MOST_JSON:
            raise DataError(f"{where}: expected at most 64 MiB of JSON, got {path.name!r}.")
        told = json.loads(path.read_bytes())
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"{where}: expected a file that can be read, got {os.fspath(path)!r}: {reason}."
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where}: expected JSON with frames, got {os.fspath(path)!r}, which is none."
        ) from error
    if not isinstance(told, dict):
        raise DataError(f"{where}: expected a JSON object with frames, got {type(told).__name__}.")
    return told


def _picture_of(folder: Path, name: str, i: int, where: str) -> Path:
    for suffix in ("", ".png", ".jpg", ".jpeg"):
        path = folder / f"{name}{suffix}"
        if path.is_file():
            return path
    raise DataError(f"{where}: expected the picture {name!r:.120} of frame {i}, got no such file.")


def _as_bytes(image: Array) -> Array:
    """Return a picture of any kind as uint8 (height, width, 3 or 4)."""
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    if image.shape[2] == 2:
        image = np.concatenate([np.repeat(image[:, :, :1], 3, axis=2), image[:, :, 1:]], axis=2)
    if image.dtype == np.uint16:
        image = np.rint(image / 257.0).astype(np.uint8)
    elif image.dtype.kind == "f":
        image = np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)
    return image


def _camera(told: Mapping[str, Any], pose: Float64, shape: tuple[int, ...], where: str) -> Camera:
    height, width = shape[:2]
    # Numbers of pixels are those of the file's own size, which the pictures may be a part of
    wide = check_number(told.get("w", width), "w", where, 1.0)
    high = check_number(told.get("h", height), "h", where, 1.0)
    if "fl_x" in told:
        x = check_number(told["fl_x"], "fl_x", where)
    elif "camera_angle_x" in told:
        angle = check_number(told["camera_angle_x"], "camera_angle_x", where, 0.0, np.pi)
        x = 0.5 * wide / np.tan(0.5 * angle) if angle else 0.0
    else:
        raise DataError(f"{where}: expected camera_angle_x or fl_x, got neither.")
    y = x
    if "fl_y" in told:
        y = check_number(told["fl_y"], "fl_y", where)
    elif "camera_angle_y" in told and "fl_x" not in told:
        angle = check_number(told["camera_angle_y"], "camera_angle_y", where, 0.0, np.pi)
        y = 0.5 * high / np.tan(0.5 * angle) if angle else 0.0
    cx = check_number(told.get("cx", wide / 2), "cx", where)
    cy = check_number(told.get("cy", high / 2), "cy", where)
    across, down = width / wide, height / high
    focal = _focal((x * across, y * down), where)
    return Camera(pose, width, height, focal, (cx * across, cy * down))


def _focal(focal: Sequence[float], where: str) -> tuple[float, float]:
    if not (min(focal) > 0 and np.isfinite(focal).all()):
        raise DataError(f"{where}: expected a focal length above 0, got {min(focal):g} pixels.")
    return float(focal[0]), float(focal[1])


def _numbers(told: Any, n: int, name: str, where: str) -> tuple[float, ...]:
    if not isinstance(told, list) or len(told) != n:
        raise DataError(f"{where}: expected {name} as {n} numbers, got {told!r:.60}.")
    return tuple(check_number(value, name, where) for value in told)


def _size(image: Array) -> str:
    return f"{image.shape[1]} x {image.shape[0]} with {image.shape[2]} channels"
