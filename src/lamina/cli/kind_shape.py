"""Solids, for encode, decode and render."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lamina.cli.kind_image import PicturePreview, numbers_of, size_of
from lamina.cli.kinds import Loaded, Rendered, Watcher, suffix_of

PREVIEW_SIZE = 320
DIFFERENCE = 1e-3  # between the points that a preview's slopes are taken from


class ShapeKind:
    """Solids."""

    name, noun, field = "shape", "a mesh", "ShapeField"
    reads: tuple[str, ...] = (".obj", ".off", ".ply", ".stl", ".glb")
    encodes: tuple[str, ...] = ("signs",)
    renders: tuple[str, ...] = ("resolution", "size", "view", "slice")

    def read(self, source: str | bytes, suffix: str, asked: Mapping[str, Any]) -> Loaded:
        """Read a mesh."""
        from lamina.fields.mesh_file import read_mesh

        mesh = read_mesh(source, suffix if isinstance(source, bytes) else None, "encode")
        signs = asked.get("signs") or "auto"
        return Loaded(mesh, _text(mesh), _facts(mesh), {"signs": signs})

    def preview(self, path: str, loaded: Loaded) -> Watcher:
        """Write a shaded picture."""
        del loaded
        import numpy as np

        from lamina.fields.sphere_trace import trace

        def slope(function: Any) -> Any:
            # A progress report has values only: differences, which a preview may show
            steps = np.float32(DIFFERENCE) * np.eye(3, dtype=np.float32)
            return lambda x: np.stack([function(x + s) - function(x - s) for s in steps], axis=2)

        size = (PREVIEW_SIZE, PREVIEW_SIZE)
        return PicturePreview(
            path, lambda now: trace(now.field, slope(now.field), *size, 30.0, 20.0)
        )

    def check_out(self, path: str, verb: str) -> None:
        """The name of a mesh, or in render of a picture."""
        from lamina.core.errors import DataError
        from lamina.fields.image_file import SUFFIXES as PICTURES
        from lamina.fields.mesh_file import SUFFIXES as MESHES

        allowed = (*MESHES, *PICTURES) if verb == "render" else MESHES
        if suffix_of(path) not in allowed:
            raise DataError(
                f"{verb}: expected a name that ends in {', '.join(allowed)}, got {path!r}. "
                "Choose one of these."
            )

    def render(self, field: Any, out: str, asked: Mapping[str, Any], verb: str) -> Rendered:
        """Render a mesh by marching cubes, or a picture of the solid or of a slice."""
        from lamina.core.errors import DataError
        from lamina.fields.mesh_file import SUFFIXES as MESHES

        if suffix_of(out) in MESHES:
            for name in ("size", "view", "slice"):
                if asked[name] is not None:
                    raise DataError(
                        f"{verb}: expected a picture's name with --{name}, got {out!r}. "
                        "Let --out end in .png."
                    )
            mesh = field.render(asked["resolution"] or 256)
            return Rendered(_text(mesh), _facts(mesh), lambda path: _write_mesh(path, mesh, verb))
        if asked["resolution"] is not None:
            raise DataError(
                f"{verb}: expected a mesh's name with --resolution, got {out!r}. "
                "Let --out end in .ply, or pass --size."
            )
        width, height = (640, 480) if asked["size"] is None else size_of(asked["size"])
        if asked["slice"] is not None:
            pixels = _slice(field, asked["slice"], min(width, height))
        else:
            angles = _view(asked["view"])
            pixels = field.picture(height, width, azimuth=angles[0], elevation=angles[1])

        def write(path: str) -> None:
            from lamina.fields import write_image

            write_image(path, _on_white(pixels) if suffix_of(path) in _OPAQUE else pixels, verb)

        facts = {"shape": list(pixels.shape), "dtype": str(pixels.dtype)}
        return Rendered(f"{pixels.shape[1]} x {pixels.shape[0]}, RGBA, uint8", facts, write)

    def scores(self, field: Any, loaded: Loaded) -> dict[str, tuple[float, str]]:
        """How far the surfaces are from each other, and the distances from the true ones."""
        errors = field.errors(loaded.signal, **loaded.options)
        return {
            "error": (errors.mean, f"{100 * errors.mean:.3f} % of the longest side"),
            "hausdorff": (
                errors.hausdorff,
                f"{100 * errors.hausdorff:.3f} % of the diagonal (95th percentile)",
            ),
        }


_OPAQUE = (".jpg", ".jpeg", ".bmp")


def _write_mesh(path: str, mesh: Any, verb: str) -> None:
    from lamina.fields import write_mesh

    write_mesh(path, mesh, verb)


def _on_white(pixels: Any) -> Any:
    import numpy as np

    alpha = pixels[:, :, 3:] / 255.0
    return np.rint(alpha * pixels[:, :, :3] + 255 * (1 - alpha)).astype(np.uint8)


def _view(text: str | None) -> tuple[float, float]:
    from lamina.core.errors import DataError

    if text is None:
        return 30.0, 20.0
    angles = numbers_of(text, "view", "30,20")
    if len(angles) != 2:
        raise DataError(
            f"render: expected --view as AZIMUTH,ELEVATION in degrees, got {text!r}. "
            "Pass one such as 30,20."
        )
    return angles[0], angles[1]


def _slice(field: Any, text: str, size: int) -> Any:
    """Return a plane of the field in colours: blue outside, red inside, the surface white."""
    import numpy as np

    from lamina.core.errors import DataError

    axis, _, at = text.partition("=")
    try:
        values = field.slice(axis.strip(), float(at), size)
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"render: expected --slice as AXIS=PLACE with x, y or z and a number in [-1, 1], got "
            f"{text!r}. Pass one such as z=0.2."
        ) from error
    pale = np.exp(-3.0 * np.abs(values))[:, :, None]
    tone = np.where(values[:, :, None] < 0, [178, 24, 43], [33, 102, 172])
    pixels = np.full((size, size, 4), 255, np.uint8)
    pixels[:, :, :3] = np.rint(pale * 255 + (1 - pale) * tone)
    return pixels


def _text(mesh: Any) -> str:
    return f"{len(mesh.vertices):,} vertices, {len(mesh.faces):,} faces"


def _facts(mesh: Any) -> dict[str, Any]:
    low, high = mesh.bounds
    return {
        "vertices": len(mesh.vertices),
        "faces": len(mesh.faces),
        "low": low.tolist(),
        "high": high.tolist(),
    }
