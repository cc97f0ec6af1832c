"""lamina encode, decode and render, of grids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from lamina.cli.main import cli
from lamina.fields import read_volume, write_volume


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in args])


def succeed(*args: object) -> Any:
    result = run(*args)
    assert result.exit_code == 0, result.stderr or result.exception
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("volumes")
    z, y, x = np.mgrid[:40, :30, :36] / 8.0
    volume = (np.sin(x + y) * np.cos(z)).astype(np.float32)
    np.save(path / "v.npy", volume)
    np.savez(path / "two.npz", a=volume, b=np.stack([volume] * 5))
    succeed("encode", path / "v.npy", "--max-error", "0.1%", "--plot", path / "sheet.png")
    return path


def test_there_and_back_within_the_bound(folder: Path, tmp_path: Path) -> None:
    volume = np.load(folder / "v.npy")
    for name in ("b.npy", "b.nc", "b.zarr"):
        succeed("decode", folder / "v.lamina", "--out", tmp_path / name)
        off = np.abs(read_volume(tmp_path / name) - volume).max()
        assert off <= 1e-3 * np.ptp(volume)
    told = json.loads(
        succeed(
            "encode",
            folder / "v.npy",
            "--max-error",
            0.01,
            "--out",
            tmp_path / "c.lamina",
            "--json",
        ).stdout
    )
    assert told["kind"] == "volume"
    assert 0 < told["largest_error"] <= 0.01
    assert told["bytes"] > told["n_bytes"]
    assert "max error" in succeed("show", folder / "v.lamina").stdout
    assert (folder / "sheet.png").stat().st_size > 10_000


def test_slices_and_windows(folder: Path, tmp_path: Path) -> None:
    volume = np.load(folder / "v.npy")
    model = folder / "v.lamina"
    told = json.loads(
        succeed("render", model, "--slice", "z=-0.9", "--out", tmp_path / "s.png", "--json").stdout
    )
    assert (told["shape"], told["blocks_read"], told["blocks"]) == ([30, 36], 2, 4)
    with Image.open(tmp_path / "s.png") as picture:
        shown = np.asarray(picture)
    wanted = (volume[1:3].mean(axis=0) - volume.min()) / np.ptp(volume) * 255
    assert np.abs(shown - wanted).max() < 6
    succeed("render", model, "--slice", "y=0", "--size", "80x72", "--out", tmp_path / "s.npy")
    assert np.load(tmp_path / "s.npy").shape == (80, 72)
    window = ["--window=-1,-1,-1,0,0,0", "--size", "40x30x36"]
    succeed("render", model, *window, "--out", tmp_path / "w.npy")
    assert np.load(tmp_path / "w.npy").shape == (40, 30, 36)


def test_a_network_alone_with_a_preview_and_a_variable(folder: Path, tmp_path: Path) -> None:
    told = succeed(
        "encode", folder / "two.npz", "--variable", "b", "--preset", "siren", "--seconds", 1,
        "--params-per-value", 0.01, "--preview", tmp_path / "p.png", "--out", tmp_path / "b.lamina",
    )  # fmt: skip
    assert "5 x 40 x 30 x 36, float32" in told.stdout
    assert (tmp_path / "p.png").is_file()
    succeed("render", tmp_path / "b.lamina", "--slice", "t=0,z=0", "--out", tmp_path / "s.png")


def test_a_stack_of_pictures_with_a_bound_is_a_grid(folder: Path, tmp_path: Path) -> None:
    volume = np.load(folder / "v.npy")
    write_volume(tmp_path / "v.tif", volume)
    preview = ("--preview", tmp_path / "p.png")
    told = succeed("encode", tmp_path / "v.tif", "--max-error", "1%", *preview)
    assert "40 x 30 x 36, float32" in told.stdout
    with Image.open(tmp_path / "p.png") as picture:
        shown = np.asarray(picture)
    wanted = (volume[19:21].mean(axis=0) - volume.min()) / np.ptp(volume) * 255
    assert np.abs(shown - wanted).max() < 8


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("encode", "{0}/two.npz", "--out", "{1}/a.lamina"), "--variable NAME"),
        (("encode", "{0}/v.npy", "--max-error", "tight", "--out", "{1}/a.lamina"), "0.1%"),
        (("encode", "{0}/v.npy", "--max-error", "-1", "--out", "{1}/a.lamina"), "max_error"),
        (("encode", "{0}/v.npy", "--axes", "zz", "--out", "{1}/a.lamina"), "letter"),
        (("encode", "{0}/v.npy", "--signs", "auto", "--out", "{1}/a.lamina"), "--max-error"),
        (("decode", "{0}/v.lamina", "--out", "{1}/a.png"), "ends in"),
        (("render", "{0}/v.lamina", "--out", "{1}/a.png"), "--slice"),
        (("render", "{0}/v.lamina", "--slice", "q=0", "--out", "{1}/a.png"), "one of z, y, x"),
        (("render", "{0}/v.lamina", "--slice", "z", "--out", "{1}/a.png"), "AXIS=PLACE"),
        (("render", "{0}/v.lamina", "--size", "9by9", "--out", "{1}/a.npy"), "64x128x128"),
        (("render", "{0}/v.lamina", "--rate", "9", "--out", "{1}/a.npy"), "--window"),
    ],
)
def test_mistakes_are_one_sentence(
    folder: Path, tmp_path: Path, args: tuple[str, ...], text: str
) -> None:
    result = run(*(a.format(folder, tmp_path) for a in args))
    assert result.exit_code == 2, result.exception
    assert text in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
