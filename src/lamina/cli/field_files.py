"""What encode, decode and render share: which kind a file is, and what is printed of a field."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from lamina.cli.console import one_line
from lamina.cli.kinds import Kind, Loaded, check_asked, suffix_of

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress, TaskID

    from lamina.fields import FieldReport, FitProgress

SECONDS_BETWEEN_LINES: Final = 2.0


def kinds() -> tuple[Kind, ...]:
    """Return all kinds; the first is what a content without a known beginning is taken for."""
    from lamina.cli.kind_audio import AudioKind
    from lamina.cli.kind_image import ImageKind
    from lamina.cli.kind_scene import SceneKind
    from lamina.cli.kind_shape import ShapeKind
    from lamina.cli.kind_volume import VolumeKind

    return ImageKind(), AudioKind(), ShapeKind(), VolumeKind(), SceneKind()


def kind_of_file(path: str, suffix: str, verb: str, asked: Mapping[str, Any]) -> Kind:
    """Return the kind whose files end so; of several, such as of .tif, the one of the options."""
    from lamina.core.errors import DataError

    every = kinds()
    ending = [kind for kind in every if suffix in kind.reads]
    given = {name for name, value in asked.items() if value is not None}
    for kind in ending:
        if given <= set(kind.encodes):
            return kind
    if ending:
        return ending[0]
    if suffix == ".lamina":
        raise DataError(
            f"{verb}: expected a picture, a sound or another signal, got {path!r}, a model file. "
            "Turn it back with: lamina decode FILE.lamina --out FILE"
        )
    choices = ", ".join(f"{kind.noun} ({', '.join(kind.reads)})" for kind in every)
    raise DataError(f"{verb}: expected {choices}, got {path!r}. Convert it to one of these.")


def kind_of_field(found: Any) -> Kind:
    """Return the kind of a field."""
    return next(kind for kind in kinds() if kind.field == type(found).__name__)


def read_signal(path: str, asked: Mapping[str, Any]) -> tuple[Kind, Loaded]:
    """Return the kind of a file and its signal. "-" is standard input.

    `asked` has the options that only some kinds know.
    """
    source: str | bytes = path
    suffix = suffix_of(path)
    if path == "-":
        source = sys.stdin.buffer.read()
        suffix = _suffix_of(source)
    kind = kind_of_file(path, suffix, "encode", asked)
    check_asked(kind.encodes, asked, kind.noun, "encode")
    return kind, kind.read(source, suffix, asked)


def _suffix_of(data: bytes) -> str:
    """Return the ending that the first bytes of a signal ask for; a picture's where they do not."""
    heads = {
        b"RIFF": ".wav",
        b"fLaC": ".flac",
        b"OggS": ".ogg",
        b"FORM": ".aiff",
        b"ID3": ".mp3",
        b"OFF": ".off",
        b"ply": ".ply",
        b"solid": ".stl",
        b"glTF": ".glb",
    }
    if data[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for head, suffix in heads.items() if data.startswith(head)), ".png")


def open_field(path: str, verb: str) -> Any:
    """Load a model file that must hold a field; another role is a `DataError`."""
    from lamina.core.errors import DataError
    from lamina.fields.field import Field
    from lamina.loading import load

    found = load(path)
    if not isinstance(found, Field):
        raise DataError(
            f"{verb}: expected a field made by lamina encode, got {path!r}, which holds a "
            f"{type(found).__name__}. Make one with: lamina encode FILE"
        )
    return found


def report_dict(report: FieldReport) -> dict[str, Any]:
    """Return a report for machines."""
    from dataclasses import asdict

    told = asdict(report)
    del told["learning_rates"]
    return told


class FieldProgress:
    """A context manager that shows a fit on standard error; call it with each `FitProgress`.

    On a terminal one bar with the live PSNR; elsewhere a plain line now and then.
    """

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last = -SECONDS_BETWEEN_LINES

    def __enter__(self) -> FieldProgress:
        if not self.quiet and sys.stderr.isatty():
            from lamina.cli.progress import new_bar

            self._bar = new_bar()
            self._task = self._bar.add_task("encoding", total=1.0, left="", scores="")
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, report: FitProgress) -> None:
        """Show where training is."""
        left = report.seconds * (1 - report.share) / max(report.share, 1e-3)
        scores, rest = f"PSNR {report.psnr:.2f} dB", f"{left:.0f} s left"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=report.share, scores=scores, left=rest)
        elif not self.quiet and time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            click.echo(one_line(f"step {report.step}  {scores}  {rest}"), err=True)
