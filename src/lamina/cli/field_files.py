"""What encode, decode and render share: which kind a file is, and what is printed of a field."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from lamina.cli.console import one_line

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress, TaskID

    from lamina.fields import FieldReport, FitProgress

Kind = Literal["image", "audio"]

IMAGES: Final = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm")
SOUNDS: Final = (".wav", ".flac", ".ogg", ".aiff", ".aif", ".mp3", ".au")
SECONDS_BETWEEN_LINES: Final = 2.0


def read_signal(path: str, verb: str) -> tuple[Kind, Any, float | None]:
    """Return the kind of a file, its array and, of sounds, the rate. "-" is standard input."""
    from lamina.core.errors import DataError
    from lamina.fields.audio_file import read_audio
    from lamina.fields.image_file import read_image

    source: str | bytes = path
    suffix = Path(path).suffix.lower()
    if path == "-":
        data = sys.stdin.buffer.read()
        source, suffix = data, _suffix_of(data)
    if suffix in SOUNDS:
        samples, rate = read_audio(source, verb)
        return "audio", samples, rate
    if suffix in IMAGES or path == "-":
        return "image", read_image(source, verb), None
    if suffix == ".lamina":
        raise DataError(
            f"{verb}: expected a picture or a sound, got {path!r}, a model file. "
            "Turn it back with: lamina decode FILE.lamina --out FILE"
        )
    raise DataError(
        f"{verb}: expected a picture ({', '.join(IMAGES)}) or a sound ({', '.join(SOUNDS)}), "
        f"got {path!r}. Convert it to one of these."
    )


def _suffix_of(data: bytes) -> str:
    """Return the ending that the first bytes of a sound ask for, or none."""
    heads = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"FORM": ".aiff", b"ID3": ".mp3"}
    if data[8:12] == b"WEBP":
        return ""
    return next((suffix for head, suffix in heads.items() if data.startswith(head)), "")


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


def write_signal(out: str, rendered: Any, field: Any, verb: str, rate: float | None = None) -> None:
    """Write what a field rendered, as the ending of ``out`` says."""
    from lamina.fields import AudioField, write_audio, write_image

    if isinstance(field, AudioField):
        write_audio(out, rendered, field.rate if rate is None else rate, verb)
    else:
        if rendered.dtype.kind == "f" and (field.form.low < 0 or field.form.high > 1):
            # A file of 8 bits has its own black and white: the picture's smallest and largest
            low, high = field.form.low, field.form.high
            rendered = (rendered - low) / ((high - low) or 1.0)
        write_image(out, rendered, verb)


def check_suffix(out: str, field: Any, verb: str) -> None:
    """Raise `DataError` unless what the field holds can be written to a file of this name."""
    from lamina.fields import AudioField
    from lamina.fields.audio_file import check_audio_suffix
    from lamina.fields.image_file import check_image_suffix

    check = check_audio_suffix if isinstance(field, AudioField) else check_image_suffix
    check(out, verb)


def size_text(array: Any, rate: float | None = None) -> str:
    """Return what an array is, in words: 512 x 512, RGB, uint8."""
    if rate is not None:
        channels = 1 if array.ndim == 1 else array.shape[1]
        names = {1: "mono", 2: "stereo"}
        return (
            f"{len(array) / rate:.4g} s at {rate:g} Hz, "
            f"{names.get(channels, f'{channels} channels')}, {array.dtype}"
        )
    channels = 1 if array.ndim == 2 else array.shape[2]
    colours = {1: "grey", 2: "grey and alpha", 3: "RGB", 4: "RGBA"}[channels]
    return f"{array.shape[1]} x {array.shape[0]}, {colours}, {array.dtype}"


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
