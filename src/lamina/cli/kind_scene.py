"""Scenes, for encode, decode and render."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lamina.cli.kind_image import PicturePreview, size_of, size_text
from lamina.cli.kinds import Loaded, Rendered, Watcher, suffix_of

PREVIEW_SIDE = 200  # pixels at most: a preview must not cost more than learning
MOST_FRAMES = 2000


class SceneKind:
    """Scenes of posed pictures."""

    name, noun, field = "scene", "a scene", "RadianceField"
    reads: tuple[str, ...] = (".json",)
    encodes: tuple[str, ...] = ()
    renders: tuple[str, ...] = ("size", "frame", "orbit", "depth")

    def read(self, source: str | bytes, suffix: str, asked: Mapping[str, Any]) -> Loaded:
        """Read a transforms.json and its pictures."""
        from lamina.core.errors import DataError
        from lamina.fields.cameras import read_views

        del suffix, asked
        if isinstance(source, bytes):
            raise DataError(
                "encode: expected the path of a transforms.json, whose pictures lie beside it, got "
                "standard input. Pass the path."
            )
        views = read_views(source, "encode")
        n, height, width, channels = views.pixels.shape
        text = f"{n} pictures of {width} x {height}, {'RGBA' if channels == 4 else 'RGB'}"
        return Loaded(views, text, {"shape": list(views.pixels.shape)})

    def preview(self, path: str, loaded: Loaded) -> Watcher:
        """Write what the first camera sees."""
        camera = loaded.signal.cameras[0]
        shrink = min(1.0, PREVIEW_SIDE / max(camera.height, camera.width))
        size = (max(1, round(shrink * n)) for n in (camera.height, camera.width))
        view = camera.resized(*size)
        return PicturePreview(path, lambda now: now.field(view))

    def check_out(self, path: str, verb: str) -> None:
        """A picture's name."""
        from lamina.fields.image_file import check_image_suffix

        if verb == "render" and (suffix_of(path) == ".gif" or "%" in path):
            return  # judged with --orbit
        check_image_suffix(path, verb)

    def render(self, field: Any, out: str, asked: Mapping[str, Any], verb: str) -> Rendered:
        """Render what a camera sees, or its depths, or a turn around the scene."""
        from lamina.core.errors import DataError

        width, height = (None, None) if asked["size"] is None else size_of(asked["size"])
        if asked["orbit"] is not None:
            return _turn(field, out, asked, height, width)
        if suffix_of(out) == ".gif":
            raise DataError(f"{verb}: expected --orbit N with a .gif, got none. Pass --orbit 60.")
        frame = asked["frame"] or 0
        if asked["depth"]:
            pixels = _depth_picture(field.render_depth(frame, height, width))
        else:
            pixels = field.render(frame, height, width)

        def write(path: str) -> None:
            from lamina.fields import write_image

            write_image(path, pixels, verb)

        facts = {"shape": list(pixels.shape), "dtype": str(pixels.dtype), "frame": frame}
        return Rendered(size_text(pixels), facts, write)

    def scores(self, field: Any, loaded: Loaded) -> dict[str, tuple[float, str]]:
        """PSNR says it all."""
        del field, loaded
        return {}


def _turn(
    field: Any, out: str, asked: Mapping[str, Any], height: int | None, width: int | None
) -> Rendered:
    """Return pictures all around: a .gif, or numbered files."""
    from lamina.core.errors import DataError
    from lamina.fields.animation import check_animation_name, write_animation

    n = asked["orbit"]
    if n > MOST_FRAMES:
        raise DataError(f"render: expected --orbit of at most {MOST_FRAMES}, got {n}.")
    if asked["frame"] is not None:
        raise DataError("render: expected --frame or --orbit, got both. Leave one out.")
    check_animation_name(out, "render, --orbit")

    def pictures() -> Any:
        for camera in field.orbit(n):
            if asked["depth"]:
                yield _depth_picture(field.render_depth(camera, height, width))
            else:
                yield field.render(camera, height, width)

    def write(path: str) -> None:
        write_animation(path, pictures(), where="render")

    return Rendered(f"{n} pictures", {"frames": n}, write)


def _depth_picture(depths: Any) -> Any:
    """Return depths as uint8: near white, far dark, nothing black."""
    import numpy as np

    known = np.isfinite(depths)
    if not known.any():
        return np.zeros(depths.shape, np.uint8)
    near, far = np.quantile(depths[known], [0.01, 0.99])
    shade = 1 - np.clip((depths - near) / max(far - near, 1e-9), 0, 1)
    return np.where(known, np.rint(50 + 205 * np.where(known, shade, 0)), 0).astype(np.uint8)
