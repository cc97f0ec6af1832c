"""Sounds, for encode, decode and render."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lamina.cli.kind_image import numbers_of
from lamina.cli.kinds import Loaded, Rendered, Watcher

ENDINGS = (".wav", ".flac", ".ogg", ".aiff", ".aif", ".mp3", ".au")


class AudioKind:
    """Sounds."""

    name, noun, field = "audio", "a sound", "AudioField"
    reads: tuple[str, ...] = ENDINGS
    encodes: tuple[str, ...] = ()
    renders: tuple[str, ...] = ("rate", "window")

    def read(self, source: str | bytes, suffix: str, asked: Mapping[str, Any]) -> Loaded:  # noqa: ARG002
        """Read a sound."""
        from lamina.fields.audio_file import read_audio

        samples, rate = read_audio(source, "encode")
        return Loaded(samples, _text(samples, rate), _facts(samples, rate), {"rate": rate})

    def preview(self, path: str, loaded: Loaded) -> Watcher:
        """Refuse: a sound has no picture that would show much."""
        from lamina.core.errors import DataError

        del path, loaded
        raise DataError("encode: expected a picture with --preview, got a sound. Leave it out.")

    def check_out(self, path: str, verb: str) -> None:
        """A name that libsndfile can write."""
        from lamina.fields.audio_file import check_audio_suffix

        check_audio_suffix(path, verb)

    def render(self, field: Any, out: str, asked: Mapping[str, Any], verb: str) -> Rendered:  # noqa: ARG002
        """Render at any rate and window of time."""
        window: Any = None if asked["window"] is None else numbers_of(asked["window"])
        rate = asked["rate"]
        samples = field.render(rate, window=window)
        rate = field.rate if rate is None else rate

        def write(path: str) -> None:
            from lamina.fields import write_audio

            write_audio(path, samples, rate, verb)

        return Rendered(_text(samples, rate), _facts(samples, rate), write)

    def scores(self, field: Any, loaded: Loaded) -> dict[str, tuple[float, str]]:
        """SNR, which does not depend on how loud the sound could have been."""
        snr = field.snr(loaded.signal)
        return {"snr": (snr, f"{snr:.2f} dB")}


def _text(array: Any, rate: float) -> str:
    channels = 1 if array.ndim == 1 else array.shape[1]
    names = {1: "mono", 2: "stereo"}
    return (
        f"{len(array) / rate:.4g} s at {rate:g} Hz, "
        f"{names.get(channels, f'{channels} channels')}, {array.dtype}"
    )


def _facts(array: Any, rate: float) -> dict[str, Any]:
    return {"shape": list(array.shape), "dtype": str(array.dtype), "rate": rate}
