"""``lamina decode``: a field becomes the picture or sound that it was made of."""

from __future__ import annotations

import click

from lamina.cli.console import check_output, facts, json_option, print_json


@click.command("decode", epilog="Example: lamina decode photo.lamina --out photo.png")
@click.argument("model")
@click.option(
    "--out", required=True, metavar="FILE", help="A .png, .jpg, .webp, .tif; .wav, .flac."
)
@json_option
def command(model: str, out: str, as_json: bool) -> None:
    """Write a field as the picture or sound it was made of.

    At the size or rate that it had; lamina render takes others.
    """
    from lamina.cli.field_files import check_suffix, open_field, size_text, write_signal

    check_output(out, "decode", [model])
    field = open_field(model, "decode")
    check_suffix(out, field, "decode")
    rendered = field.render()
    write_signal(out, rendered, field, "decode")
    rate = getattr(field, "rate", None)
    if as_json:
        shape, dtype = list(rendered.shape), str(rendered.dtype)
        print_json({"out": out, "shape": shape, "dtype": dtype, "rate": rate})
        return
    facts([("decoded", size_text(rendered, rate)), ("written", out)])
