"""``lamina render``: a field at any size, window or rate."""

from __future__ import annotations

import re
from typing import Any

import click

from lamina.cli.console import check_output, facts, json_option, print_json


@click.command(
    "render", epilog="Example: lamina render photo.lamina --size 2048x2048 --out big.png"
)
@click.argument("model")
@click.option(
    "--out", required=True, metavar="FILE", help="A .png, .jpg, .webp, .tif; .wav, .flac."
)
@click.option("--size", metavar="WxH", help="Of a picture, in pixels [default: its own].")
@click.option("--rate", type=click.FloatRange(1), help="Of a sound, in Hz [default: its own].")
@click.option(
    "--window",
    metavar="A,B,…",
    help="Of a picture: left,top,right,bottom, each in [-1, 1]. Of a sound: begin,end in seconds.",
)
@json_option
def command(
    model: str, out: str, size: str | None, rate: float | None, window: str | None, as_json: bool
) -> None:
    """Write a field at any size, window or rate.

    It is a function, not pixels. Nothing is averaged: a picture much smaller than the one that
    was encoded aliases.
    """
    from lamina.cli.field_files import check_suffix, open_field, size_text, write_signal
    from lamina.core.errors import DataError
    from lamina.fields import AudioField

    check_output(out, "render", [model])
    field = open_field(model, "render")
    check_suffix(out, field, "render")
    shown: Any = None if window is None else _numbers(window)
    if isinstance(field, AudioField):
        if size is not None:
            raise DataError("render: expected --rate with a sound, got --size. Leave it out.")
        rendered = field.render(rate, window=shown)
        rate = field.rate if rate is None else rate
    else:
        if rate is not None:
            raise DataError("render: expected --size with a picture, got --rate. Leave it out.")
        width, height = (None, None) if size is None else _size(size)
        rendered = field.render(height, width, window=shown)
    write_signal(out, rendered, field, "render", rate)
    if as_json:
        shape, dtype = list(rendered.shape), str(rendered.dtype)
        print_json({"out": out, "shape": shape, "dtype": dtype, "rate": rate})
        return
    facts([("rendered", size_text(rendered, rate)), ("written", out)])


def _size(text: str) -> tuple[int, int]:
    """Return width and height of a text such as 640x480."""
    from lamina.core.errors import DataError

    match = re.fullmatch(r"([1-9][0-9]{0,8})[x×X]([1-9][0-9]{0,8})", text.strip())
    if match is None:
        raise DataError(
            f"render: expected --size as WIDTHxHEIGHT, got {text!r}. Pass one such as 1024x768."
        )
    return int(match[1]), int(match[2])


def _numbers(text: str) -> tuple[float, ...]:
    from lamina.core.errors import DataError

    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise DataError(
            f"render: expected --window as numbers with commas between them, got {text!r}. "
            "Pass one such as -1,-1,0,0."
        ) from error
