"""ShapeField: distances of solids whose distance is known in closed form, and what is refused."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from click.testing import CliRunner

import lamina
from lamina.cli.main import cli
from lamina.core.errors import DataError, ModelFileError, ShapeError, SpecError
from lamina.fields import Mesh, ShapeField, read_image, read_mesh, write_mesh
from lamina.fields.isosurface import isosurface
from lamina.fields.mesh import SignedDistance, check_mesh, open_edges
from lamina.fields.shape import ShapeSignal

Array = np.ndarray[Any, Any]
BOX = trimesh.creation.box((2.0, 1.0, 0.5))


def box_distance(x: Array) -> Array:
    """Signed distance to BOX, whose half sides are 1, 1/2 and 1/4."""
    q = np.abs(x) - np.array([1.0, 0.5, 0.25])
    outside = np.linalg.norm(np.maximum(q, 0), axis=1)
    return outside + np.minimum(q.max(axis=1), 0)


@pytest.fixture(scope="module")
def field() -> ShapeField:
    return ShapeField(rng=0).fit(BOX, max_steps=300, n_params=30_000)


def test_exact_distances_are_those_of_the_box() -> None:
    x = np.random.default_rng(0).uniform(-1.5, 1.5, (3000, 3))
    for signs in ("auto", "normals", "winding"):
        distance = SignedDistance(check_mesh(BOX.vertices, BOX.faces, "test"), signs, "test")
        values, gradients = distance(x)
        assert np.allclose(values, box_distance(x), atol=1e-12)
        step = 1e-6 * np.eye(3)
        slopes = np.stack([(box_distance(x + s) - box_distance(x - s)) / 2e-6 for s in step], 1)
        smooth = (
            np.abs(np.linalg.norm(slopes, axis=1) - 1) < 1e-3
        )  # not where two faces are as near
        assert smooth.mean() > 0.99
        assert np.allclose(gradients[smooth], slopes[smooth], atol=1e-3)


def test_on_the_surface_the_gradient_is_the_normal_of_the_face() -> None:
    x = np.array([[1.0, 0.1, 0.05], [0.2, -0.5, 0.1]])
    distance = SignedDistance(check_mesh(BOX.vertices, BOX.faces, "test"), "normals", "test")
    values, gradients = distance(x)
    assert np.allclose(values, 0, atol=1e-12)
    assert np.allclose(gradients, [[1, 0, 0], [0, -1, 0]])


def test_a_field_learns_the_distance_in_the_meshs_own_places(field: ShapeField) -> None:
    x = np.random.default_rng(1).uniform(-1.1, 1.1, (20_000, 3))
    error = np.abs(field.distance(x) - box_distance(x))
    assert error.mean() < 0.01 * 2.0
    errors = field.errors(BOX)
    assert errors.mean < 0.01
    assert errors.near < 0.002
    assert errors.signs > 0.999
    assert errors.hausdorff < 0.005
    assert errors.slope < 0.1
    assert field.psnr(BOX) == pytest.approx(field.report.psnr)
    assert field.form.signs == "normals"


def test_values_and_gradients_are_in_the_unit_of_coordinates(field: ShapeField) -> None:
    # The longest side, 2, becomes 1.8
    x = np.array([[0.2, 0.1, 0.7]], np.float32)
    assert field(x)[0, 0] == pytest.approx(0.9 * box_distance(x / 0.9)[0], abs=0.03)
    assert np.allclose(field.gradient(x)[0, 0], [0, 0, 1], atol=0.1)


def test_marching_cubes_gives_the_box_back(field: ShapeField) -> None:
    mesh = field.render(64, colours=True)
    assert mesh.volume == pytest.approx(1.0, rel=0.02)
    assert open_edges(mesh.faces) == 0
    assert np.allclose(mesh.bounds, [[-1, -0.5, -0.25], [1, 0.5, 0.25]], atol=0.02)
    assert mesh.normals is not None
    assert mesh.colours is not None
    away = np.einsum("ij,ij->i", mesh.normals, mesh.vertices / np.array([1, 0.5, 0.25]))
    assert (away > 0).mean() > 0.99


@pytest.mark.parametrize("resolution", [30, 64, 100])
def test_the_isosurface_of_a_sphere_has_its_area_and_no_slits(resolution: int) -> None:
    mesh = isosurface(
        lambda x: np.linalg.norm(x, axis=1, keepdims=True) - np.float32(0.7), resolution, "test"
    )
    assert open_edges(mesh.faces) == 0
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.7**3, rel=0.01)
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - 0.7).max() < 0.25 / resolution


def test_a_function_without_a_surface_is_refused() -> None:
    with pytest.raises(SpecError, match="zero somewhere"):
        isosurface(lambda x: np.ones((len(x), 1), np.float32), 32, "test")


def test_a_picture_shows_the_box_from_the_front(field: ShapeField) -> None:
    pixels = field.picture(60, 80, azimuth=0, elevation=0)
    seen = pixels[:, :, 3] > 0
    rows, columns = np.nonzero(seen)
    assert pixels.shape == (60, 80, 4)
    # 1.8 wide and 0.9 high at a distance of 3.2 - 0.225
    assert (np.ptp(columns) + 1) / (np.ptp(rows) + 1) == pytest.approx(2, rel=0.1)
    assert np.ptp(columns) + 1 == pytest.approx(1.8 / 2.975 / 0.45 / 2 * 60, rel=0.1)


def test_a_slice_is_the_field_on_a_plane(field: ShapeField) -> None:
    plane = field.slice("y", 0.25, 8)
    line = (2 * np.arange(8) + 1) / 8 - 1
    assert plane[2, 5] == field(np.array([[line[5], 0.25, line[2]]], np.float32))[0, 0]


def test_model_files_give_the_same_bits(field: ShapeField, tmp_path: Path) -> None:
    field.save(tmp_path / "box.lamina")
    again = lamina.load(tmp_path / "box.lamina")
    x = np.random.default_rng(2).uniform(-1, 1, (100, 3))
    assert np.array_equal(again(x), field(x))
    assert again.form == field.form
    data = bytearray((tmp_path / "box.lamina").read_bytes())
    at = data.index(b'"scale"') if b'"scale"' in data else data.index(b'scale\\"')
    data[at + 1 : at + 3] = b"zz"
    (tmp_path / "bad.lamina").write_bytes(data)
    with pytest.raises(ModelFileError):
        lamina.load(tmp_path / "bad.lamina")


def test_a_fit_is_repeated_bit_for_bit() -> None:
    first = ShapeField(rng=3).fit(BOX, max_steps=40, n_params=4000)
    again = ShapeField(rng=3).fit(BOX, max_steps=40, n_params=4000)
    assert np.array_equal(first.network.theta, again.network.theta)


@pytest.mark.parametrize("preset", ["siren", "fourier", "relu"])
def test_every_preset_learns(preset: str) -> None:
    before = ShapeField(preset, rng=0).fit(BOX, max_steps=1, n_params=3000).report.psnr
    after = ShapeField(preset, rng=0).fit(BOX, max_steps=150, n_params=3000).report.psnr
    assert after > before + 2


@pytest.mark.slow
def test_thirty_seconds_are_enough_for_a_knot() -> None:
    mesh = knot()
    errors = ShapeField(rng=0).fit(mesh, max_steps=3000).errors(mesh)
    assert errors.mean < 0.002
    assert errors.near < 0.001
    assert errors.signs > 0.999
    assert errors.slope < 0.1
    assert errors.hausdorff < 0.005


def knot(n_along: int = 300, n_around: int = 40) -> tuple[Array, Array]:
    """A closed tube along the (2, 3) torus knot."""
    t = 2 * np.pi * np.arange(n_along) / n_along
    middle = np.stack(
        [(2 + np.cos(3 * t)) * np.cos(2 * t), (2 + np.cos(3 * t)) * np.sin(2 * t), np.sin(3 * t)], 1
    )
    along = np.roll(middle, -1, 0) - np.roll(middle, 1, 0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    side = np.cross(along, [0.0, 0.0, 1.0])
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(side, along)
    a = 2 * np.pi * np.arange(n_around) / n_around
    ring = np.cos(a)[:, None] * side[:, None] + np.sin(a)[:, None] * up[:, None]
    vertices = (middle[:, None] + 0.4 * ring).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(n_along), np.arange(n_around), indexing="ij")
    k, m = (i + 1) % n_along, (j + 1) % n_around
    corner = [np.ravel(u * n_around + v) for u, v in ((i, j), (k, j), (k, m), (i, m))]
    faces = np.concatenate([np.stack([corner[p] for p in q], 1) for q in ((0, 1, 2), (0, 2, 3))])
    return vertices, faces


def test_holes_are_counted_and_winding_numbers_offered() -> None:
    opened = (BOX.vertices, BOX.faces[2:])
    with pytest.raises(DataError, match=r"4 open edges\. Pass signs='winding'"):
        ShapeField().fit(opened, max_steps=1)
    signal = ShapeSignal(check_mesh(*opened, "test"), "winding", "test")
    x = np.random.default_rng(0).uniform(-0.8, 0.8, (2000, 3)) * np.array([1, 0.45, 0.22])
    assert (signal.distance(x)[0] < 0).mean() > 0.99


def test_a_solid_that_cuts_through_itself_gets_winding_numbers() -> None:
    a, b = trimesh.creation.box((1, 1, 1)), trimesh.creation.box((1, 1, 1))
    b.apply_translation([0.6, 0.3, 0.2])
    both = trimesh.util.concatenate([a, b])
    mesh = check_mesh(both.vertices, both.faces, "test")
    assert SignedDistance(mesh, "auto", "test").signs == "winding"
    assert SignedDistance(mesh, "auto", "test")(np.array([[0.3, 0.2, 0.1]]))[0][0] < 0


def test_faces_turned_this_way_and_that_are_put_right() -> None:
    faces = BOX.faces.copy()
    faces[3] = faces[3][::-1]
    distance = SignedDistance(check_mesh(BOX.vertices, faces, "test"), "auto", "test")
    assert distance(np.zeros((1, 3)))[0][0] == pytest.approx(-0.25)
    inside_out = check_mesh(BOX.vertices, BOX.faces[:, ::-1], "test")
    assert SignedDistance(inside_out, "auto", "test")(np.zeros((1, 3)))[0][0] == -0.25


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".stl", ".off", ".glb"])
def test_meshes_go_through_files(suffix: str, tmp_path: Path) -> None:
    mesh = check_mesh(BOX.vertices, BOX.faces, "test")
    write_mesh(tmp_path / f"a{suffix}", mesh)
    again = read_mesh(tmp_path / f"a{suffix}")
    assert again.volume == pytest.approx(1.0, rel=1e-5)
    assert (len(again.vertices), len(again.faces)) == (8, 12)
    assert open_edges(again.faces) == 0


SQUARE = ([[0, 0, 0], [1, 0, 0], [1, 1, 0]], [[0, 1, 2]])


@pytest.mark.parametrize(
    ("mesh", "error", "says"),
    [
        ((np.zeros((3, 2)), [[0, 1, 2]]), ShapeError, "vertices as numbers of shape"),
        ((SQUARE[0], [[0, 1, 2, 0]]), ShapeError, "Cut other polygons"),
        ((SQUARE[0], [[0, 1, 3]]), DataError, "vertices 0 to 2"),
        (([[0, 0, 0], [1, 0, 0], [1, np.nan, 0]], [[0, 1, 2]]), DataError, "NaN or infinity"),
        ((SQUARE[0], [[0, 1, 1]]), DataError, "none that has an area"),
        ((SQUARE[0], np.empty((0, 3))), DataError, "none that has an area"),
        (SQUARE, DataError, "3 open edges"),
        (7, DataError, "expected a mesh, got int"),
        ("none.ply", DataError, "none.ply"),
        ("none.txt", DataError, "expected a mesh"),
    ],
)
def test_what_is_no_mesh_is_one_sentence(mesh: Any, error: type, says: str) -> None:
    with pytest.raises(error) as caught:
        ShapeField().fit(mesh, max_steps=1)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".stl", ".off", ".glb"])
def test_damaged_files_are_one_sentence(suffix: str, tmp_path: Path) -> None:
    mesh = check_mesh(BOX.vertices, BOX.faces, "test")
    whole = tmp_path / f"a{suffix}"
    write_mesh(whole, mesh)
    data = whole.read_bytes()
    rng = np.random.default_rng(0)
    for k in range(12):
        broken = bytearray(data[: len(data) * (k + 1) // 14])
        for _ in range(k % 4):
            broken[rng.integers(len(broken))] = rng.integers(256)
        with contextlib.suppress(DataError):  # and nothing else
            read_mesh(bytes(broken), suffix)


def run(*args: object) -> Any:
    return CliRunner().invoke(cli, [str(a) for a in args])


def test_the_verbs_take_meshes(field: ShapeField, tmp_path: Path) -> None:
    mesh, model = tmp_path / "box.off", tmp_path / "box.lamina"
    write_mesh(mesh, check_mesh(BOX.vertices, BOX.faces, "test"))
    args = ("--seconds", 2, "--preview", tmp_path / "p.png", "--json")
    told = json.loads(run("encode", mesh, "--out", model, *args).stdout)
    assert told["kind"] == "shape"
    assert told["faces"] == 12
    assert told["hausdorff"] == pytest.approx(lamina.load(model).errors(mesh).hausdorff)
    assert read_image(tmp_path / "p.png").shape == (320, 320, 4)
    field.save(model)
    assert run("decode", model, "--out", tmp_path / "b.ply").exit_code == 0
    assert read_mesh(tmp_path / "b.ply").volume == pytest.approx(1, rel=0.02)
    out = tmp_path / "c.stl"
    assert run("render", model, "--resolution", 32, "--out", out).exit_code == 0
    assert len(read_mesh(out).faces) < len(read_mesh(tmp_path / "b.ply").faces)
    for option in (("--view", "10,5"), ("--slice", "z=0.1")):
        out = tmp_path / "v.png"
        assert run("render", model, *option, "--size", "40x30", "--out", out).exit_code == 0
        assert read_image(out).shape[2] == 4


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--resolution", 20, "--out", "a.png"), "a mesh's name with --resolution"),
        (("--size", "9x9", "--out", "a.ply"), "a picture's name with --size"),
        (("--rate", 9, "--out", "a.ply"), "Leave it out"),
        (("--slice", "q=1", "--out", "a.png"), "x, y or z"),
        (("--slice", "z", "--out", "a.png"), "AXIS=PLACE"),
        (("--view", "1", "--out", "a.png"), "AZIMUTH,ELEVATION"),
        (("--out", "a.wav"), "ends in"),
    ],
)
def test_mistakes_of_render_are_one_sentence(
    field: ShapeField, tmp_path: Path, args: tuple[Any, ...], says: str
) -> None:
    model = tmp_path / "box.lamina"
    field.save(model)
    result = run("render", model, *args[:-1], tmp_path / args[-1])
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_mesh_may_be_passed_as_it_is() -> None:
    mesh = Mesh(np.asarray(BOX.vertices), np.asarray(BOX.faces, np.int64))
    assert ShapeField(rng=0).fit(mesh, max_steps=1, n_params=1000).form.n_faces == 12
