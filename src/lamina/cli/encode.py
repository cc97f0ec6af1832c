"""``lamina encode``: a picture, a sound, a mesh, a grid or a scene becomes a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lamina.cli.console import check_output, facts, json_option, note, print_json
from lamina.cli.proof import check_plot

if TYPE_CHECKING:
    from lamina.fields import FitProgress


@click.command("encode", epilog="Example: lamina encode photo.png --seconds 30")
@click.argument("file")
@click.option("--out", metavar="FILE", help="Where to write [default: FILE's name with .lamina].")
@click.option(
    "--preset",
    type=click.Choice(["hash", "fourier", "siren", "relu", "classic"]),
    default="hash",
    show_default=True,
    help="The network: hash learns fastest; classic is for scenes. See docs/fields.md.",
)
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), help="Time limit [default: 30]."
)
@click.option("--steps", type=click.IntRange(1), help="Most steps, for runs that repeat.")
@click.option("--psnr", type=float, metavar="DB", help="Stop when the field is so good.")
@click.option(
    "--params-per-value",
    type=click.FloatRange(0, min_open=True),
    help="Parameters a number of the signal, such as a pixel's red [default: 0.5].",
)
@click.option(
    "--bpp",
    type=click.FloatRange(0, min_open=True),
    help="Of a picture: bits a pixel that the file takes at most; 8 a byte.",
)
@click.option(
    "--bits-per-weight",
    type=click.FloatRange(0.05, 12),
    help="Compress: bits that each weight takes, on average, such as 4; 32 without.",
)
@click.option(
    "--signs",
    type=click.Choice(["auto", "normals", "winding"]),
    help="Of a mesh: how inside is told from outside; winding where it has holes.",
)
@click.option(
    "--max-error",
    metavar="E",
    help="Of a grid: no sample's error is larger; with %, of its range, such as 0.1%.",
)
@click.option("--variable", metavar="NAME", help="Of a grid: which array of the file.")
@click.option("--axes", metavar="LETTERS", help="Of a grid: such as zyx, tyx, tzyx, zyxc.")
@click.option("--preview", metavar="FILE", help="A picture that shows the field as it learns.")
@click.option(
    "--plot",
    metavar="FILE",
    help="A contact sheet, signal, field, error, spectrum: a .png, .svg or .pdf file.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--threads", type=click.IntRange(1), help="Threads [default: as many as CPUs].")
@json_option
def command(
    file: str,
    out: str | None,
    preset: str,
    seconds: float | None,
    steps: int | None,
    psnr: float | None,
    params_per_value: float | None,
    bpp: float | None,
    bits_per_weight: float | None,
    signs: str | None,
    max_error: str | None,
    variable: str | None,
    axes: str | None,
    preview: str | None,
    plot: str | None,
    seed: int,
    threads: int | None,
    as_json: bool,
) -> None:
    """Store a picture, sound, mesh, grid or scene in a network.

    The result is a function of coordinates: lamina render shows it at any size or rate, lamina
    decode at its own. Ctrl-C ends training early and keeps the best so far. "-" reads from
    standard input, and then needs --out. A grid is a NumPy, NetCDF or Zarr array; with --max-error
    what the network leaves is stored as well, and every sample is checked. A scene is
    the transforms.json of posed pictures.
    """
    import lamina.fields
    from lamina.cli.field_files import FieldProgress, read_signal, report_dict
    from lamina.cli.rate import Rate, rates
    from lamina.core.errors import DataError

    if out is None:
        if file == "-":
            raise DataError("encode: expected --out FILE with standard input, got none.")
        out = str(Path(file).with_suffix(".lamina"))
    check_output(out, "encode", [file])
    check_plot(plot, "encode")
    asked = {
        "bpp": bpp,
        "signs": signs,
        "max_error": max_error,
        "variable": variable,
        "axes": axes,
    }
    kind, loaded = read_signal(file, asked)
    rate = Rate.of(loaded, bpp, bits_per_weight)
    limits: dict[str, Any] = {"max_seconds": seconds, "max_steps": steps}
    tune: dict[str, Any] = {}
    n_params = None
    if rate is not None:
        if max_error is not None:
            raise DataError(
                "encode: expected --max-error or --bits-per-weight, got both. Leave one out."
            )
        n_params = rate.n_params if params_per_value is None else None
    watchers: list[Any] = []
    if preview is not None:
        watchers.append(kind.preview(preview, loaded))
        check_output(preview, "encode", [file, out], "--preview")
    field: Any = getattr(lamina.fields, kind.field)(preset, rng=seed, n_threads=threads)
    if rate is not None:
        limits, tune = rate.limits(seconds, steps, field.SECONDS)
    with FieldProgress(as_json) as progress:
        watchers.append(progress)

        def tell(report: FitProgress) -> None:
            for watcher in watchers:
                watcher(report)

        field.fit(
            loaded.signal,
            **limits,
            target_psnr=psnr,
            n_params=n_params,
            params_per_value=params_per_value,
            progress=tell,
            **loaded.options,
        )
        if rate is not None:
            field = rate.apply(field, loaded, tune, tell)
    field.save(out)
    if plot is not None:
        from lamina.core.modelfile import write_atomically
        from lamina.plots.style import to_file

        sheet = field.plot(loaded.signal)
        write_atomically(plot, [to_file(sheet, Path(plot).suffix.lower())], "encode")
    report = field.report
    if report.stopped == "interrupted":
        note("stopped by Ctrl-C; the best so far is kept.")
    scores = kind.scores(field, loaded)
    size = Path(out).stat().st_size
    sizes = rates(field, size)
    if as_json:
        print_json(
            {"kind": kind.name, "out": out, "bytes": size, "preset": preset}
            | dict(loaded.facts)
            | report_dict(report)
            | {name: value for name, (value, _) in (scores | sizes).items()}
        )
        return
    share = field.n_params / report.n_values
    facts(
        [
            (kind.name, loaded.text),
            ("network", f"{preset}, {field.n_params:,} parameters, {share:.3g} a value"),
            ("training", f"{report.n_steps:,} steps in {report.seconds:.1f} s"),
            ("PSNR", f"{report.psnr:.2f} dB"),
            *(
                (name if len(name) > 4 else name.upper(), text)
                for name, (_, text) in scores.items()
            ),
            ("size", ", ".join([f"{size:,} bytes", *(text for _, text in sizes.values())])),
            ("written", out),
        ]
    )
