"""``lamina render``: a field at any size, window, rate or resolution."""

from __future__ import annotations

import click

from lamina.cli.console import check_output, facts, json_option, print_json


@click.command(
    "render", epilog="Example: lamina render photo.lamina --size 2048x2048 --out big.png"
)
@click.argument("model")
@click.option(
    "--out",
    required=True,
    metavar="FILE",
    help="A .png, .jpg, .webp, .tif; .wav, .flac; .ply, .obj, .stl, .glb, .off; .npy, .nc, .zarr.",
)
@click.option("--size", metavar="WxH", help="In pixels; of a grid DxHxW [default: its own].")
@click.option("--rate", type=click.FloatRange(1), help="Of a sound, in Hz [default: its own].")
@click.option(
    "--window",
    metavar="A,B,…",
    help="Of a picture: left,top,right,bottom, each in [-1, 1]; of a grid x,y,z,x,y,z. "
    "Of a sound: begin,end in seconds.",
)
@click.option(
    "--resolution", type=click.IntRange(8), help="Of a mesh: cells along a side [default: 256]."
)
@click.option(
    "--view", metavar="A,E", help="Of a solid's picture: azimuth,elevation in degrees [30,20]."
)
@click.option("--slice", metavar="z=PLACE", help="Of a solid or grid: a plane, in [-1, 1].")
@click.option(
    "--frame", type=click.IntRange(0), help="Of a scene: which of its cameras [default: 0]."
)
@click.option(
    "--orbit", type=click.IntRange(1), help="Of a scene: so many pictures around it, as a .gif."
)
@click.option(
    "--zoom-to",
    metavar="A,B,C,D",
    help="Of a picture: go from --window to this one, as a .gif, .webp or numbered files.",
)
@click.option("--frames", type=click.IntRange(2, 2000), help="Pictures of --zoom-to [default: 50].")
@click.option("--depth", is_flag=True, default=None, help="Of a scene: depths, near is light.")
@json_option
def command(
    model: str,
    out: str,
    size: str | None,
    rate: float | None,
    window: str | None,
    resolution: int | None,
    view: str | None,
    slice: str | None,
    frame: int | None,
    orbit: int | None,
    depth: bool | None,
    zoom_to: str | None,
    frames: int | None,
    as_json: bool,
) -> None:
    """Write a field at any size, window, rate or resolution.

    It is a function, not pixels. Nothing is averaged: a picture much smaller than the one that
    was encoded aliases. Of a solid, the name's ending chooses a mesh or a shaded picture.
    """
    from lamina.cli.field_files import kind_of_field, open_field
    from lamina.cli.kinds import check_asked

    check_output(out, "render", [model])
    field = open_field(model, "render")
    kind = kind_of_field(field)
    asked = {
        "size": size,
        "rate": rate,
        "window": window,
        "resolution": resolution,
        "view": view,
        "slice": slice,
        "frame": frame,
        "orbit": orbit,
        "depth": depth,
        "zoom_to": zoom_to,
        "frames": frames,
    }
    check_asked(kind.renders, asked, kind.noun, "render")
    kind.check_out(out, "render")
    rendered = kind.render(field, out, asked, "render")
    rendered.write(out)
    if as_json:
        print_json({"out": out} | dict(rendered.facts))
        return
    facts([("rendered", rendered.text), ("written", out)])
