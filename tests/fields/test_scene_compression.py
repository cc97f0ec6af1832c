"""Compressed scenes: two networks in one stream, and what rays see of their weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from tests.fields.test_radiance_field import views, write_scene

import lamina
from lamina.cli.main import cli
from lamina.core import modelfile
from lamina.core.errors import DataError, ModelFileError, SpecError
from lamina.fields import FitProgress, RadianceField, compress, scene_tuning
from lamina.fields.occupancy import CELLS, OccupancyGrid, inflated
from lamina.fields.radiance import RadianceRun
from lamina.fields.radiance_render import STEP, places_of
from lamina.fields.volume_rendering import render, render_backward


@pytest.fixture(scope="module")
def field() -> RadianceField:
    return RadianceField(rng=0).fit(views(16, 0), max_steps=90, n_params=60_000)


@pytest.mark.parametrize("bits", [2.0, 4.0, 8.0])
def test_the_rate_is_what_was_asked(field: RadianceField, tmp_path: Path, bits: float) -> None:
    small = compress(field, bits)
    assert 0.95 * bits <= small.bits_per_weight <= bits
    small.save(tmp_path / "small.lamina")
    assert (tmp_path / "small.lamina").stat().st_size == small.n_file_bytes
    _, spec, arrays = modelfile.read(tmp_path / "small.lamina")
    assert set(arrays) == {"stream", "cells"}
    assert len(spec["coding"]["tensors"]) == len(field._tensors())
    assert 8 * len(arrays["stream"]) / field.n_params == pytest.approx(small.bits_per_weight)
    assert len(arrays["cells"]) < CELLS**3 // 8 // 5


def test_eight_bits_lose_little_and_the_fitted_scene_is_left_as_it_is(field: RadianceField) -> None:
    held_out, before = views(4, 9), field.render(2)
    small = compress(field, 8)
    assert small.psnr(held_out) > field.psnr(held_out) - 0.1
    assert np.array_equal(field.render(2), before)
    assert field.coding is None
    assert small.report.psnr == field.report.psnr  # not measured: there are no pictures


def test_tuning_wins_back_what_few_bits_lose(field: RadianceField) -> None:
    pictures = views(16, 0)
    plain, tuned = compress(field, 0.6), compress(field, 0.6, signal=pictures, max_steps=60)
    assert tuned.bits_per_weight <= 0.6
    assert tuned.psnr(pictures) > plain.psnr(pictures) + 0.5
    assert tuned.report.psnr == pytest.approx(tuned.psnr(pictures), abs=1.5)


def test_a_file_gives_the_same_scene_and_can_be_compressed_again(
    field: RadianceField, tmp_path: Path
) -> None:
    small = compress(field, 4)
    small.save(tmp_path / "a.lamina")
    again = lamina.load(tmp_path / "a.lamina")
    assert np.array_equal(again.network.theta, small.network.theta)
    assert np.array_equal(again.colour_network.theta, small.colour_network.theta)
    assert np.array_equal(again.render(3), small.render(3))
    again.save(tmp_path / "b.lamina")
    assert np.array_equal(lamina.load(tmp_path / "b.lamina").render(3), small.render(3))
    assert again.bits_per_weight == small.bits_per_weight
    smaller = compress(again, n_bytes=30_000, signal=views(16, 0), max_steps=3)
    assert 28_000 < smaller.n_file_bytes <= 30_000
    assert np.array_equal(again.render(3), small.render(3))


def test_weights_set_by_hand_are_not_lost(field: RadianceField, tmp_path: Path) -> None:
    small = compress(field, 4)
    small.colour_network.theta = small.colour_network.theta + np.float32(0.01)
    small.save(tmp_path / "a.lamina")
    again = lamina.load(tmp_path / "a.lamina")
    assert again.coding is None
    assert np.array_equal(again.colour_network.theta, small.colour_network.theta)
    assert np.array_equal(again.render(3), small.render(3))


def test_a_fit_of_a_compressed_scene_is_not_compressed(field: RadianceField) -> None:
    small = compress(field, 4)
    small.fit(views(4, 0), max_steps=2, n_params=20_000)
    assert small.coding is None


def test_the_classic_network_is_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    from lamina.fields import radiance

    monkeypatch.setattr(radiance, "CLASSIC_WIDTH", 32)
    pictures = views(6, 0)
    field = RadianceField("classic", rng=0).fit(pictures, max_steps=30)
    small = compress(field, 6, signal=pictures, max_steps=3)
    assert small.bits_per_weight <= 6
    assert small.psnr(pictures) > field.psnr(pictures) - 0.5


def test_gradients_are_those_of_what_rays_see(field: RadianceField) -> None:
    pair = field.network, field.colour_network
    run = RadianceRun("hash", *pair, 1 << 15, 0, 1)
    rng = np.random.default_rng(1)
    rays = scene_tuning._rays(field, rng)
    samples = field.occupancy.march(*rays, rng.uniform(size=len(rays[0])))
    places, encoded = places_of("hash", rays[0], rays[1], samples)
    behind = rng.uniform(size=(len(rays[0]), 3))
    signs = rng.choice([-1.0, 1.0], behind.shape)

    def seen(trunk: Any, colour: Any) -> float:
        said = trunk(places)
        colours = colour(np.concatenate([said[:, 1:], encoded], axis=1))
        optical = np.exp(said[:, 0].astype(np.float64)) * STEP
        shown = render(optical, colours, samples.ray, len(behind), behind)
        return float((shown.colour * signs).sum())

    said = run.forward(places, encoded)
    shown = render(said.density * STEP, said.colours, samples.ray, len(behind), behind)
    optical, colours = render_backward(shown, said.colours, samples.ray, behind, signs)
    gradients = run.gradients(places, said, optical * STEP, colours)
    for which, gradient in enumerate(gradients):
        direction = gradient / np.linalg.norm(gradient)
        ends = []
        for sign in (1, -1):
            moved = [lamina.Network.from_spec(n.spec, n.theta.copy()) for n in pair]
            moved[which].theta = moved[which].theta + np.float32(sign * 1e-3) * direction
            ends.append(seen(*moved))
        slope = (ends[0] - ends[1]) / 2e-3
        assert float(gradient @ direction) == pytest.approx(slope, rel=0.01)


def test_what_no_ray_sees_has_no_derivative(field: RadianceField) -> None:
    squares = scene_tuning.squared_derivatives(field)
    assert squares.shape == (field.n_params,)
    assert (squares >= 0).all()
    assert np.count_nonzero(squares[: field.network.n_params]) < field.network.n_params
    parts = field._tensors()
    assert parts[-1].stop == field.n_params
    assert all(squares[part].max() > 0 for part in parts)


def test_empty_cells_survive_the_file() -> None:
    grid = OccupancyGrid(STEP)
    grid.set_taken(np.random.default_rng(0).uniform(size=CELLS**3) < 0.1)
    assert np.array_equal(np.unpackbits(inflated(grid.deflated(), "x")), grid.taken)


@pytest.mark.parametrize("kind", ["cut", "long", "short", "noise", "type", "bomb"])
def test_cells_of_a_stranger_are_one_sentence(kind: str) -> None:
    import zlib

    good = OccupancyGrid(STEP).deflated()
    stream = {
        "cut": good[:-1],
        "long": np.concatenate([good, good]),
        "short": np.frombuffer(zlib.compress(bytes(9)), np.uint8),
        "noise": np.arange(50, dtype=np.uint8),
        "type": good.astype(np.float32),
        "bomb": np.frombuffer(zlib.compress(bytes(1 << 24), 9), np.uint8),
    }[kind]
    with pytest.raises(DataError, match=r"x: expected 96\^3 bits of occupancy by zlib, got others"):
        inflated(stream, "x")


def test_tampered_files_are_one_sentence(field: RadianceField, tmp_path: Path) -> None:
    small = compress(field, 4)
    small.save(tmp_path / "a.lamina")
    data = (tmp_path / "a.lamina").read_bytes()
    for name in (b"coding", b"stream", b"cells", b"colour", b"tensors"):
        (tmp_path / "b.lamina").write_bytes(data.replace(name, b"x" * len(name), 1))
        with pytest.raises(ModelFileError):
            lamina.load(tmp_path / "b.lamina")
    spec, arrays = small._parts()
    for changed in (
        {name: array for name, array in arrays.items() if name != "cells"},
        {**arrays, "theta": field.network.theta},
        {**arrays, "stream": arrays["stream"][:-5]},
        {"stream": arrays["stream"], "occupancy": np.packbits(field.occupancy.taken)},
    ):
        with pytest.raises((SpecError, DataError), match="RadianceField: expected"):
            RadianceField.from_file_parts(spec, changed)


def test_too_few_bits_are_one_sentence(field: RadianceField) -> None:
    with pytest.raises(SpecError, match=r"expected at least .* bytes for the weights"):
        compress(field, n_bytes=3000)


def test_ctrl_c_keeps_the_tuning_so_far(field: RadianceField) -> None:
    told: list[int] = []

    def interrupt(now: FitProgress) -> None:
        told.append(now.step)
        raise KeyboardInterrupt

    small = compress(field, 2, signal=views(16, 0), max_steps=10_000, progress=interrupt)
    assert told == [1]
    assert small.bits_per_weight <= 2


def test_encode_takes_bits_a_weight_of_a_scene(tmp_path: Path) -> None:
    path, model = write_scene(tmp_path), tmp_path / "a.lamina"
    args = ["encode", str(path), "--out", str(model), "--steps", "8", "--bits-per-weight", "3"]
    result = CliRunner().invoke(cli, [*args, "--json"])
    assert result.exit_code == 0, (result.stderr, result.exception)
    told = json.loads(result.stdout)
    assert 2.8 < told["bits_per_weight"] <= 3
    assert told["bytes"] == model.stat().st_size
    assert lamina.load(model).coding is not None
