"""``lamina decode``: a field becomes the signal that it was made of."""

from __future__ import annotations

import click

from lamina.cli.console import check_output, facts, json_option, print_json


@click.command("decode", epilog="Example: lamina decode photo.lamina --out photo.png")
@click.argument("model")
@click.option(
    "--out",
    required=True,
    metavar="FILE",
    help="A .png, .jpg, .webp, .tif; .wav, .flac; .ply, .obj, .stl, .glb, .off; .npy, .nc, .zarr.",
)
@json_option
def command(model: str, out: str, as_json: bool) -> None:
    """Write a field as the signal it was made of.

    At the size or rate that it had (a mesh by marching cubes of 256 cells a side, a scene as its
    first camera sees it); lamina render takes others.
    """
    from lamina.cli.field_files import kind_of_field, open_field

    check_output(out, "decode", [model])
    field = open_field(model, "decode")
    kind = kind_of_field(field)
    kind.check_out(out, "decode")
    rendered = kind.render(field, out, dict.fromkeys(kind.renders), "decode")
    rendered.write(out)
    if as_json:
        print_json({"out": out} | dict(rendered.facts))
        return
    facts([("decoded", rendered.text), ("written", out)])
