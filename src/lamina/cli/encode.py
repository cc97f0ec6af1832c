"""``lamina encode``: a picture or a sound becomes the weights of a network."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lamina.cli.console import check_output, facts, json_option, note, print_json
from lamina.cli.proof import check_plot

if TYPE_CHECKING:
    from lamina.fields import FitProgress

PREVIEW_SECONDS = 1.0
MOST_PREVIEW = 768  # pixels along the longer side


@click.command("encode", epilog="Example: lamina encode photo.png --seconds 30")
@click.argument("file")
@click.option("--out", metavar="FILE", help="Where to write [default: FILE's name with .lamina].")
@click.option(
    "--preset",
    type=click.Choice(["hash", "fourier", "siren", "relu"]),
    default="hash",
    show_default=True,
    help="The network: hash learns fastest; see docs/fields.md.",
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
    preview: str | None,
    plot: str | None,
    seed: int,
    threads: int | None,
    as_json: bool,
) -> None:
    """Store a picture or a sound FILE in the weights of a network.

    The result is a function of coordinates: lamina render shows it at any size or rate, lamina
    decode at its own. Ctrl-C ends training early and keeps the best so far. "-" reads from
    standard input, and then needs --out.
    """
    from lamina.cli.field_files import FieldProgress, read_signal, report_dict, size_text
    from lamina.core.errors import DataError
    from lamina.fields import AudioField, ImageField

    if out is None:
        if file == "-":
            raise DataError("encode: expected --out FILE with standard input, got none.")
        out = str(Path(file).with_suffix(".lamina"))
    check_output(out, "encode", [file])
    check_plot(plot, "encode")
    kind, array, rate = read_signal(file, "encode")
    watchers: list[Any] = []
    if preview is not None:
        watchers.append(_Preview(preview, kind, array, [file, out]))
    field: Any
    options: dict[str, Any] = {
        "max_seconds": seconds,
        "max_steps": steps,
        "target_psnr": psnr,
        "params_per_value": params_per_value,
    }
    with FieldProgress(as_json) as progress:
        watchers.append(progress)

        def tell(report: FitProgress) -> None:
            for watcher in watchers:
                watcher(report)

        if kind == "audio":
            field = AudioField(preset, rng=seed, n_threads=threads)
            field.fit(array, rate=rate, progress=tell, **options)
        else:
            field = ImageField(preset, rng=seed, n_threads=threads)
            field.fit(array, progress=tell, **options)
    field.save(out)
    if plot is not None:
        from lamina.core.modelfile import write_atomically
        from lamina.plots.style import to_file

        write_atomically(plot, [to_file(field.plot(array), Path(plot).suffix.lower())], "encode")
    report = field.report
    if report.stopped == "interrupted":
        note("stopped by Ctrl-C; the best so far is kept.")
    scores = {"psnr": report.psnr}
    if kind == "audio":
        scores["snr"] = field.snr(array)
    if as_json:
        size = Path(out).stat().st_size
        print_json(
            {"kind": kind, "out": out, "bytes": size, "preset": preset}
            | {"shape": list(array.shape), "dtype": str(array.dtype), "rate": rate}
            | report_dict(report)
            | scores
        )
        return
    share = field.n_params / report.n_values
    facts(
        [
            (kind, size_text(array, rate)),
            ("network", f"{preset}, {field.n_params:,} parameters, {share:.3g} a value"),
            ("training", f"{report.n_steps:,} steps in {report.seconds:.1f} s"),
            *((name.upper(), f"{value:.2f} dB") for name, value in scores.items()),
            ("written", out),
        ]
    )


class _Preview:
    """Writes the field so far as a picture, now and then."""

    def __init__(self, path: str, kind: str, array: Any, inputs: list[str]) -> None:
        from lamina.core.errors import DataError
        from lamina.fields.image import ImageSignal
        from lamina.fields.image_file import check_image_suffix

        if kind != "image":
            raise DataError("encode: expected a picture with --preview, got a sound. Leave it out.")
        check_image_suffix(path, "encode, --preview")
        check_output(path, "encode", inputs, "--preview")
        self.path, self.last = path, 0.0
        self.form = ImageSignal(array, None, "encode").form
        shrink = min(1.0, MOST_PREVIEW / max(self.form.height, self.form.width))
        self.height = max(1, round(shrink * self.form.height))
        self.width = max(1, round(shrink * self.form.width))

    def __call__(self, report: FitProgress) -> None:
        from lamina.fields.image import FULL, paint
        from lamina.fields.image_file import write_image

        # A preview takes at most a tenth of the time
        since = time.perf_counter()
        if since < self.last:
            return
        pixels = paint(report.field, self.form, self.height, self.width, FULL)
        write_image(self.path, pixels, "encode, --preview")
        now = time.perf_counter()
        self.last = now + max(PREVIEW_SECONDS, 9 * (now - since))
