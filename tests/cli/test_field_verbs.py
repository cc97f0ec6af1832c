"""encode, decode and render: a picture and a sound through files, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import lamina
from lamina.cli.main import cli
from lamina.fields import read_audio, read_image, write_audio, write_image


def run(*args: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in args], input=stdin)


def succeed(*args: object, stdin: bytes | None = None) -> Result:
    result = run(*args, stdin=stdin)
    assert result.exit_code == 0, (result.stderr, result.exception)
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a picture, a sound, and the fields that encode makes of them."""
    folder = tmp_path_factory.mktemp("fields")
    i, j = np.mgrid[:40, :60]
    pixels = np.stack([6 * i, 4 * j, 128 + 100 * np.sin(i / 4) * np.cos(j / 5)], axis=2)
    write_image(folder / "a.png", pixels.astype(np.uint8))
    t = np.arange(4000) / 8000
    write_audio(folder / "s.wav", (9000 * np.sin(2 * np.pi * 300 * t)).astype(np.int16), 8000)
    succeed("encode", folder / "a.png", "--steps", 900, "--params-per-value", 1)
    succeed("encode", folder / "s.wav", "--steps", 900, "--params-per-value", 1)
    return folder


def test_encode_says_what_it_made(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "b.lamina"
    result = succeed("encode", folder / "a.png", "--steps", 50, "--out", out)
    shown = dict(line.split("  ", 1) for line in result.stdout.splitlines())
    assert shown["image"].strip() == "60 x 40, RGB, uint8"
    assert shown["network"].strip().startswith("hash, ")
    assert shown["training"].strip().startswith("50 steps")
    psnr = lamina.load(out).psnr(folder / "a.png")
    assert float(shown["PSNR"].split()[0]) == pytest.approx(psnr, abs=0.006)
    assert shown["written"].strip() == str(out)


def test_encode_for_machines(folder: Path, tmp_path: Path) -> None:
    args = ("encode", folder / "s.wav", "--steps", 50, "--out", tmp_path / "s.lamina", "--json")
    result = succeed(*args, "--preset", "siren")
    told = json.loads(result.stdout)
    assert result.stderr == ""
    assert told["kind"] == "audio"
    assert told["n_steps"] == 50
    assert told["rate"] == 8000
    assert told["bytes"] == (tmp_path / "s.lamina").stat().st_size
    field = lamina.load(tmp_path / "s.lamina")
    assert field.preset == "siren"
    assert told["snr"] == pytest.approx(field.snr(folder / "s.wav"))


def test_decode_gives_the_size_and_rate_of_the_signal(folder: Path, tmp_path: Path) -> None:
    shown = succeed("decode", folder / "a.lamina", "--out", tmp_path / "a.png").stdout
    assert "60 x 40, RGB, uint8" in shown
    pixels = read_image(tmp_path / "a.png")
    assert np.array_equal(pixels, lamina.load(folder / "a.lamina").render())
    assert np.abs(pixels.astype(int) - read_image(folder / "a.png")).mean() < 4
    told = succeed("decode", folder / "s.lamina", "--out", tmp_path / "s.flac", "--json").stdout
    assert json.loads(told)["rate"] == 8000
    samples, rate = read_audio(tmp_path / "s.flac")
    assert rate == 8000
    assert np.array_equal(samples, lamina.load(folder / "s.lamina").render())


def test_render_at_any_size_window_and_rate(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    window = ("--window", "-1,-1,0,0")
    succeed("render", folder / "a.lamina", "--size", "120x80", *window, "--out", out)
    field: Any = lamina.load(folder / "a.lamina")
    assert np.array_equal(read_image(out), field.render(80, 120, window=(-1, -1, 0, 0)))
    out = tmp_path / "s.wav"
    args = ("--rate", 16000, "--window", "0.1,0.2", "--out", out, "--json")
    told = json.loads(succeed("render", folder / "s.lamina", *args).stdout)
    assert told["shape"] == [1600]
    samples, rate = read_audio(out)
    assert (len(samples), rate) == (1600, 16000)


def test_a_zoom_goes_from_one_window_to_another(folder: Path, tmp_path: Path) -> None:
    way = ("--window", "-1,-1,1,1", "--zoom-to", "-1,-1,-0.5,-0.5", "--size", "30x20")
    for out in ("z.gif", "z-%d.png"):
        args = (*way, "--frames", 4, "--out", tmp_path / out)
        assert "4 pictures of 30 x 20" in succeed("render", folder / "a.lamina", *args).stdout
    with Image.open(tmp_path / "z.gif") as moving:
        assert (moving.n_frames, moving.size) == (4, (30, 20))
    field: Any = lamina.load(folder / "a.lamina")
    last = field.render(20, 30, window=(-1, -1, -0.5, -0.5))
    assert np.abs(read_image(tmp_path / "z-3.png").astype(int) - last).max() <= 1
    assert np.array_equal(read_image(tmp_path / "z-0.png"), field.render(20, 30))
    # Half way a window is the geometric mean of its ends
    between = field.render(
        20, 30, window=(-1, -1, 2 * 0.25 ** (1 / 3) - 1, 2 * 0.25 ** (1 / 3) - 1)
    )
    assert np.abs(read_image(tmp_path / "z-1.png").astype(int) - between).mean() < 2


def test_a_preview_shows_the_field_as_it_learns(folder: Path, tmp_path: Path) -> None:
    preview = tmp_path / "p.png"
    args = ("--seconds", 0.8, "--out", tmp_path / "a.lamina", "--preview", preview)
    succeed("encode", folder / "a.png", *args)
    assert read_image(preview).shape == (40, 60, 3)


def test_encode_reads_standard_input(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.lamina"
    for name, kind in (("a.png", "ImageField"), ("s.wav", "AudioField")):
        succeed("encode", "-", "--steps", 5, "--out", out, stdin=(folder / name).read_bytes())
        assert type(lamina.load(out)).__name__ == kind
    assert run("encode", "-", stdin=b"text").exit_code == 2


def test_ctrl_c_keeps_the_best_so_far(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lamina.cli import field_files

    def interrupt(self: object, report: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(field_files.FieldProgress, "__call__", interrupt)
    out = tmp_path / "a.lamina"
    result = succeed("encode", folder / "a.png", "--seconds", 60, "--out", out)
    assert "note: stopped by Ctrl-C; the best so far is kept." in result.stderr
    assert lamina.load(out).report.stopped == "interrupted"


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("encode", "none.png"), "none.png"),
        (("encode", "{0}/a.xyz"), "expected a picture"),
        (("encode", "{0}/a.lamina", "--out", "{1}/b.lamina"), "lamina decode"),
        (("encode", "-"), "--out"),
        (("encode", "{0}/a.png", "--out", "{0}/a.png"), "the name of a file to read"),
        (("encode", "{0}/a.png", "--preset", "perlin"), "perlin"),
        (("encode", "{0}/a.png", "--preview", "{1}/p.txt"), "ends in"),
        (("encode", "{0}/s.wav", "--preview", "{1}/p.png"), "got a sound"),
        (("encode", "{0}/a.png", "--preview", "{1}/no/p.png"), "another place with --preview"),
        (("decode", "{0}/a.lamina", "--out", "{1}/a.wav"), "ends in"),
        (("decode", "{0}/s.lamina", "--out", "{1}/s.png"), "ends in"),
        (("decode", "{0}/a.png", "--out", "{1}/s.png"), "model file"),
        (("decode", "{1}/net.lamina", "--out", "{1}/s.png"), "lamina encode"),
        (("render", "{0}/a.lamina", "--frames", "9", "--out", "{1}/a.gif"), "--zoom-to"),
        (("render", "{0}/a.lamina", "--out", "{1}/a.gif"), "ends in"),
        (("render", "{0}/a.lamina", "--zoom-to", "0,0,1,1", "--out", "{1}/a.png"), "number"),
        (("render", "{0}/a.lamina", "--size", "9", "--out", "{1}/a.png"), "WIDTHxHEIGHT"),
        (("render", "{0}/a.lamina", "--rate", "9", "--out", "{1}/a.png"), "--size"),
        (("render", "{0}/s.lamina", "--size", "9x9", "--out", "{1}/s.wav"), "--rate"),
        (("render", "{0}/a.lamina", "--window", "a,b", "--out", "{1}/a.png"), "commas"),
        (("render", "{0}/a.lamina", "--window", "1,1,0,0", "--out", "{1}/a.png"), "left < right"),
    ],
)
def test_mistakes_are_one_sentence(
    folder: Path, tmp_path: Path, args: tuple[str, ...], text: str
) -> None:
    lamina.Network(2, (3,), 1, rng=0).save(tmp_path / "net.lamina")
    result = run(*(a.format(folder, tmp_path) for a in args))
    assert result.exit_code == 2, result.exception
    assert text in result.stderr
    assert result.stderr.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["net.lamina"]
