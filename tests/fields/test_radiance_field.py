"""RadianceField: a scene whose pictures are known in closed form, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import lamina
from lamina.cli.main import cli
from lamina.core.errors import DataError, ModelFileError, ShapeError, SpecError
from lamina.fields import Camera, RadianceField, Views, read_image, read_views, write_image
from lamina.fields.animation import write_animation

Array = np.ndarray[Any, Any]
SIDE, FOCAL, AWAY, RADIUS = 32, 40.0, 4.0, 0.8


def pose(eye: Array) -> Array:
    back = eye / np.linalg.norm(eye)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(back, right), back, eye], axis=1)


def ball(camera: Camera) -> tuple[Array, Array]:
    """Return what a camera sees of a ball whose colour is its normal's, RGBA, and the depths."""
    origins, ahead = camera.all_rays()
    along = -(origins * ahead).sum(axis=1)
    under = along**2 - (origins**2).sum(axis=1) + RADIUS**2
    hit = under > 0
    t = along - np.sqrt(np.where(hit, under, 0))
    normal = (origins + t[:, None] * ahead) / RADIUS
    pixels = np.zeros((len(hit), 4))
    pixels[hit, :3] = 0.5 + 0.5 * normal[hit]
    pixels[hit, 3] = 1
    depth = np.where(hit, t * (ahead @ -camera.matrix[:, 2]), 0)
    shape = (camera.height, camera.width)
    return np.rint(255 * pixels).astype(np.uint8).reshape(*shape, 4), depth.reshape(shape)


def cameras(n: int, seed: int) -> list[Camera]:
    rng = np.random.default_rng(seed)
    eyes = rng.normal(size=(n, 3))
    eyes *= AWAY / np.linalg.norm(eyes, axis=1, keepdims=True)
    middle = (SIDE / 2, SIDE / 2)
    return [Camera(pose(eye), SIDE, SIDE, (FOCAL, FOCAL), middle) for eye in eyes]


def views(n: int, seed: int) -> Views:
    each = cameras(n, seed)
    pixels = np.stack([ball(camera)[0] for camera in each])
    return Views(pixels, tuple(each), tuple(map(str, range(n))))


@pytest.fixture(scope="module")
def field() -> RadianceField:
    return RadianceField(rng=0).fit(views(16, 0), max_steps=90, n_params=60_000)


def test_views_that_were_held_out_are_seen_right(field: RadianceField) -> None:
    held_out = views(4, 1)
    assert field.psnr(held_out) > 20
    flat = Views(np.full_like(held_out.pixels, 255), held_out.cameras, held_out.names)
    assert field.psnr(flat) < 15  # a judge that is not always pleased
    assert field.report.psnr == pytest.approx(field.psnr(views(16, 0)), abs=1.0)


def test_depths_are_those_of_the_ball(field: RadianceField) -> None:
    camera = cameras(1, 2)[0]
    true, seen = ball(camera)[1], field.render_depth(camera)
    both = (true > 0) & np.isfinite(seen)
    assert both.sum() > 0.9 * (true > 0).sum()
    assert np.median(np.abs(seen - true)[both]) < 0.2
    assert np.isinf(seen[0, 0])


def test_places_and_directions_give_densities_and_colours(field: RadianceField) -> None:
    scale = field.frame.scale
    inside, outside = np.array([[0.7, 0, 0]]) * scale, np.array([[0.0, 1.2, 0]]) * scale
    density, colour = field(np.concatenate([inside, outside]), np.array([[-1.0, 0, 0], [0, -2, 0]]))
    assert density[0] > 5
    assert density[1] < 0.1 * density[0]
    assert colour.shape == (2, 3)
    assert colour[0, 0] > colour[0, 1]  # red is the normal's x
    step = np.array([[1e-3, 0, 0]])
    slope = field.gradient(inside)[0, 0]
    ends = field(np.concatenate([inside + step, inside - step]), -np.ones((2, 3)))[0]
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-3, rel=0.2, abs=5)


def test_sizes_and_backgrounds(field: RadianceField) -> None:
    assert field.render(0, 20, 30).shape == (20, 30, 3)
    assert field.render(0, width=16).shape == (16, 16, 3)
    assert (field.render(0, background=(0, 0.5, 1))[0, 0] == [0, 128, 255]).all()
    path = field.orbit(4, elevation=10)
    assert [np.linalg.norm(c.eye) for c in path] == pytest.approx([AWAY] * 4, rel=0.01)
    assert all(c.eye @ c.matrix[:, 2] > 0.99 * AWAY for c in path)  # all look at the middle


def test_files_give_the_same_pictures(field: RadianceField, tmp_path: Path) -> None:
    field.save(tmp_path / "a.lamina")
    again = lamina.load(tmp_path / "a.lamina")
    assert np.array_equal(again.render(3), field.render(3))
    assert again.report.psnr == field.report.psnr
    again.save(tmp_path / "b.lamina")
    assert np.array_equal(lamina.load(tmp_path / "b.lamina").render(3), field.render(3))


@pytest.mark.parametrize("what", ["scale", "middle", "cameras", "colour", "matrix"])
def test_a_tampered_file_is_one_sentence(field: RadianceField, tmp_path: Path, what: str) -> None:
    field.save(tmp_path / "a.lamina")
    data = (tmp_path / "a.lamina").read_bytes()
    (tmp_path / "a.lamina").write_bytes(data.replace(what.encode(), b"x" * len(what), 1))
    with pytest.raises(ModelFileError):
        lamina.load(tmp_path / "a.lamina")


def test_a_fit_is_repeated_bit_for_bit() -> None:
    few = views(4, 0)
    first = RadianceField(rng=1).fit(few, max_steps=5, n_params=20_000)
    again = RadianceField(rng=2).fit(few, repeat=first.report, n_params=20_000)
    assert np.array_equal(first.network.theta, again.network.theta)
    assert np.array_equal(first.colour_network.theta, again.colour_network.theta)


def test_the_classic_network_is_the_papers_and_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lamina.fields.radiance_fit.CLASSIC_RAYS", 48)
    monkeypatch.setattr("lamina.fields.radiance_fit.SCORED_RAYS", 300)
    few = views(2, 0)
    field = RadianceField("classic", rng=0).fit(few, max_steps=25)
    assert field.network.spec.widths == (256,) * 8
    assert field.network.spec.fan_in(6) == 256 + 63
    # Table of weights and biases, counted by hand: 63·256, 4 of 256·256, 319·256, 2 of 256·256, to
    # 257, and 283·128, 128·3
    trunk = 63 * 256 + 6 * 256 * 256 + 319 * 256 + 8 * 256 + 256 * 257 + 257
    assert field.n_params == trunk + 283 * 128 + 128 + 128 * 3 + 3
    start = RadianceField("classic", rng=0).fit(few, max_steps=1)
    assert field.report.psnr > start.report.psnr + 1


@pytest.mark.slow
def test_a_minute_is_enough_for_a_fine_ball() -> None:
    field = RadianceField(rng=0).fit(views(40, 0), max_steps=1000)
    assert field.psnr(views(8, 1)) > 30


def test_rays_go_through_the_pixels_that_they_belong_to() -> None:
    camera = Camera(pose(np.array([1.0, -2.0, 0.5])), 30, 20, (25.0, 27.0), (14.0, 11.0))
    origins, ahead = camera.rays(np.array([3.5, 20.5]), np.array([4.5, 17.5]))
    local = (origins + 2.7 * ahead - camera.eye) @ camera.matrix[:, :3]
    assert np.allclose(14 + 25 * local[:, 0] / -local[:, 2], [3.5, 20.5])
    assert np.allclose(11 - 27 * local[:, 1] / -local[:, 2], [4.5, 17.5])


def write_scene(folder: Path, n: int = 3) -> Path:
    scene = views(n, 0)
    frames = []
    for i, camera in enumerate(scene.cameras):
        write_image(folder / f"r_{i}.png", scene.pixels[i])
        matrix = np.vstack([camera.matrix, [0, 0, 0, 1]])
        frames.append({"file_path": f"./r_{i}", "transform_matrix": matrix.tolist()})
    angle = 2 * np.arctan(SIDE / 2 / FOCAL)
    path = folder / "transforms.json"
    path.write_text(json.dumps({"camera_angle_x": angle, "frames": frames}))
    return path


def test_transforms_are_read_as_they_were_written(tmp_path: Path) -> None:
    again, scene = read_views(write_scene(tmp_path)), views(3, 0)
    assert np.array_equal(again.pixels, scene.pixels)
    for ours, true in zip(again.cameras, scene.cameras, strict=True):
        assert np.allclose(ours.matrix, true.matrix)
        assert ours.focal == pytest.approx(true.focal)


def test_intrinsics_may_stand_in_a_frame_and_be_of_another_size(tmp_path: Path) -> None:
    path = write_scene(tmp_path)
    told = json.loads(path.read_text())
    del told["camera_angle_x"]
    told |= {"fl_x": 80.0, "fl_y": 90.0, "cx": 30.0, "w": 64, "h": 64}
    told["frames"][1] |= {"fl_x": 100.0}
    path.write_text(json.dumps(told))
    first, second, _ = read_views(path).cameras
    assert first.focal == (40.0, 45.0)
    assert first.centre == (15.0, 16.0)
    assert second.focal == (50.0, 45.0)


def spoil(told: dict[str, Any], kind: str, folder: Path) -> None:
    frame = told["frames"][1]
    if kind == "singular":
        frame["transform_matrix"] = np.zeros((4, 4)).tolist()
    elif kind == "mirrored":
        frame["transform_matrix"] = np.diag([1.0, 1, -1, 1]).tolist()
    elif kind == "nan":
        frame["transform_matrix"][0][0] = float("nan")
    elif kind == "short":
        frame["transform_matrix"] = [[1, 2], [3, 4]]
    elif kind == "no matrix":
        del frame["transform_matrix"]
    elif kind == "no path":
        frame["file_path"] = 3
    elif kind == "no picture":
        frame["file_path"] = "./none"
    elif kind == "size":
        Image.new("RGBA", (7, 5)).save(folder / "r_1.png")
    elif kind == "cut":
        (folder / "r_1.png").write_bytes((folder / "r_1.png").read_bytes()[:60])
    elif kind == "no angle":
        del told["camera_angle_x"]
    elif kind == "flat":
        told["camera_angle_x"] = 0.0
    elif kind == "no frames":
        told["frames"] = []


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("singular", "frame 1 with axes at right angles"),
        ("mirrored", "mirrored"),
        ("nan", "not finite"),
        ("short", "4 x 4 numbers"),
        ("no matrix", "frame 1 with a transform_matrix"),
        ("no path", "frame 1 with a file_path"),
        ("no picture", "'./none' of frame 1"),
        ("size", "32 x 32 with 4 channels, as the first is, got 7 x 5"),
        ("cut", "r_1.png"),
        ("no angle", "camera_angle_x or fl_x, got neither"),
        ("flat", "focal length above 0"),
        ("no frames", "expected frames"),
    ],
)
def test_what_is_wrong_with_a_scene_is_one_sentence(tmp_path: Path, kind: str, says: str) -> None:
    path = write_scene(tmp_path)
    told = json.loads(path.read_text())
    spoil(told, kind, tmp_path)
    path.write_text(json.dumps(told))
    result = CliRunner().invoke(cli, ["encode", str(path), "--out", str(tmp_path / "a.lamina")])
    assert result.exit_code == 2, result.exception
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "a.lamina").exists()


def test_other_mistakes_are_one_sentence(field: RadianceField, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1")
    with pytest.raises(DataError, match="expected JSON"):
        read_views(tmp_path / "a.json")
    with pytest.raises(DataError, match="can be read"):
        read_views(tmp_path / "none.json")
    with pytest.raises(DataError, match="several sides"):
        RadianceField().fit(views(1, 0), max_steps=1)
    with pytest.raises(DataError, match="low < high"):
        RadianceField().fit(views(2, 0), bounds=((0, 0, 0), (1, 1, 0)), max_steps=1)
    with pytest.raises(DataError, match="show nothing there"):
        RadianceField().fit(views(4, 0), bounds=((9, 9, 9), (9.1, 9.1, 9.1)), max_steps=1)
    with pytest.raises(SpecError, match="preset"):
        RadianceField("siren")
    with pytest.raises(SpecError, match="one of 16 cameras, got 16"):
        field.render(16)
    with pytest.raises(DataError, match="3 values"):
        field.render(0, background=(1, 2, 3))
    with pytest.raises(ShapeError, match="a direction for each of 2 places"):
        field(np.zeros((2, 3)), np.ones((1, 3)))
    with pytest.raises(DataError, match="directions of some length"):
        field(np.zeros((1, 3)), np.zeros((1, 3)))
    with pytest.raises(ShapeError, match="uint8"):
        RadianceField().fit((np.zeros((2, 4, 4, 3)), [np.eye(4)] * 2, 5.0))


def test_the_verbs_take_scenes(field: RadianceField, tmp_path: Path) -> None:
    path, model = write_scene(tmp_path), tmp_path / "a.lamina"

    def run(*args: object) -> Any:
        result = CliRunner().invoke(cli, [str(a) for a in args])
        assert result.exit_code == 0, (result.stderr, result.exception)
        return result

    args = ("--steps", 3, "--preview", tmp_path / "p.png", "--params-per-value", 3, "--json")
    told = json.loads(run("encode", path, "--out", model, *args).stdout)
    assert told["kind"] == "scene"
    assert told["shape"] == [3, 32, 32, 4]
    assert read_image(tmp_path / "p.png").shape == (32, 32, 3)
    field.save(model)
    run("decode", model, "--out", tmp_path / "b.png")
    assert np.array_equal(read_image(tmp_path / "b.png"), field.render(0))
    run("render", model, "--frame", 2, "--size", "20x10", "--depth", "--out", tmp_path / "c.png")
    assert read_image(tmp_path / "c.png").shape == (10, 20)
    run("render", model, "--orbit", 3, "--size", "16x16", "--out", tmp_path / "d.gif")
    with Image.open(tmp_path / "d.gif") as moving:
        assert moving.n_frames == 3
    run("render", model, "--orbit", 2, "--size", "16x16", "--out", tmp_path / "e-%02d.png")
    assert read_image(tmp_path / "e-01.png").shape == (16, 16, 3)
    for wrong, says in (
        (("--out", "x.gif"), "--orbit"),
        (("--orbit", 2, "--frame", 1, "--out", "x.gif"), "got both"),
        (("--orbit", 2, "--out", "x.png"), "the picture's number"),
        (("--frame", 99, "--out", "x.png"), "one of 16 cameras"),
    ):
        out = tmp_path / str(wrong[-1])
        result = CliRunner().invoke(cli, ["render", str(model), *map(str, wrong[:-1]), str(out)])
        assert result.exit_code == 2
        assert says in result.stderr


def test_an_animation_takes_its_pictures_one_by_one(tmp_path: Path) -> None:
    def pictures() -> Any:
        for i in range(5):
            yield np.full((4, 6, 3), 40 * i, np.uint8)

    assert write_animation(tmp_path / "a.webp", pictures(), seconds=0.1) == 5
    with Image.open(tmp_path / "a.webp") as moving:
        assert moving.n_frames == 5
    with pytest.raises(DataError, match="at least one"):
        write_animation(tmp_path / "b.gif", [])
    with pytest.raises(DataError, match="one number"):
        write_animation(tmp_path / "%d-%d.png", pictures())
    assert [p.name for p in tmp_path.iterdir()] == ["a.webp"]
