"""Measure solids: how near a field of 30 s comes to its mesh.

::

    python benchmarks/fields_shapes.py --data FOLDER       its meshes (.off, .ply, .obj, .stl)
    python benchmarks/fields_shapes.py --report            rewrite docs/fields.md from the last run

Lengths are shares of the longest side of the mesh's box, the Hausdorff distance (95th percentile of
both directions) of its diagonal.
"""

from __future__ import annotations

import json
import platform
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

import lamina
from lamina.fields import ShapeField, read_mesh

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "fields_shapes.json"
PAGE = HERE.parent / "docs" / "fields.md"
ENDINGS = (".off", ".ply", ".obj", ".stl")


def measure(path: Path, seconds: float) -> dict[str, Any]:
    """Fit one mesh and return what came of it."""
    mesh = read_mesh(path)
    since, cpu = time.perf_counter(), time.process_time()
    field = ShapeField(rng=0).fit(mesh, max_seconds=seconds)
    told = {
        "mesh": path.stem,
        "faces": len(mesh.faces),
        "n_params": field.n_params,
        "seconds": time.perf_counter() - since,
        "cpu_seconds": time.process_time() - cpu,
        "steps": field.report.n_steps,
        "psnr": field.report.psnr,
        "signs_by": field.form.signs,
    }
    since = time.perf_counter()
    rendered = field.render(256)
    told |= {"render_seconds": time.perf_counter() - since, "rendered_faces": len(rendered.faces)}
    return told | asdict(field.errors(mesh))


def table(results: dict[str, Any]) -> str:
    """Return the block of docs/fields.md."""
    lines = [
        "| | faces | parameters | mean error | near | signs | slope off by | Hausdorff | CPU s |",
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    lines += [
        (
            f"| {r['mesh']} | {r['faces']:,} | {r['n_params']:,} | {100 * r['mean']:.3f} % | "
            f"{100 * r['near']:.3f} % | {100 * r['signs']:.3f} % | {r['slope']:.3f} | "
            f"{100 * r['hausdorff']:.3f} % | {r['cpu_seconds']:.0f} |"
        )
        for r in results["shapes"]
    ]
    lines += [
        "",
        f"{results['seconds']:g} s each, {results['n_threads']} threads ({results['isa']}). Errors "
        "of distances in the whole box and near the surface, of the longest side; signs of points "
        "farther than 0.5 % from the surface; slope: mean of | \\|grad F\\| - 1 | near it.",
    ]
    return "\n".join(lines)


@click.command(help=(__doc__ or "").replace("::\n", "\b"))
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="A folder of meshes.")
@click.option("--seconds", default=30.0, show_default=True)
@click.option("--report", is_flag=True, help="Only rewrite the page.")
def main(data: Path | None, seconds: float, report: bool) -> None:
    if not report:
        if data is None:
            raise click.UsageError("expected --data FOLDER, got none.")
        shapes = []
        for path in sorted(p for p in data.rglob("*") if p.suffix in ENDINGS):
            shapes.append(measure(path, seconds))
            click.echo(json.dumps(shapes[-1]))
        info = lamina.info()
        results = {
            "seconds": seconds,
            "isa": info["isa"],
            "n_threads": info["n_threads"],
            "machine": platform.machine(),
            "shapes": shapes,
        }
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    text = PAGE.read_text()
    begin, end = "<!-- shapes:start -->\n", "<!-- shapes:end -->"
    before, after = text.split(begin)[0], text.split(end)[1]
    block = table(json.loads(RESULTS.read_text()))
    PAGE.write_text(f"{before}{begin}{block}\n{end}{after}")


if __name__ == "__main__":
    main()
