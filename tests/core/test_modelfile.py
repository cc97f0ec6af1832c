"""The model file: round trips and safe writing.

The oracle of the format is the safetensors package, which reads what we wrote.
"""

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open
from tests.core.sample_files import ARRAYS, SPEC, assert_same_arrays

from lamina.core import modelfile
from lamina.core.errors import ModelFileError

DTYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", ">f8", ">i4"]

in_tmp_path = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "model.lamina"
    modelfile.write(target, "network", SPEC, ARRAYS)
    return target


# ------------------------------------------------------------------------------- what is written


def test_read_gives_back_what_was_written(path):
    role, spec, arrays = modelfile.read(path)
    assert role == "network"
    assert spec == SPEC
    assert_same_arrays(arrays, ARRAYS)


@in_tmp_path
@given(data=st.data())
def test_any_array_and_specification_round_trip(tmp_path, data):
    array = data.draw(
        hnp.arrays(st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, min_side=0), fill=None)
    )
    json_values = st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters()),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    )
    spec = {"value": data.draw(json_values)}
    arrays = {"a": array, "transposed": array.T}
    modelfile.write(tmp_path / "m", "role", spec, arrays)
    role, spec_back, arrays_back = modelfile.read(tmp_path / "m")
    assert role == "role"
    assert spec_back == spec
    assert_same_arrays(arrays_back, arrays)


def test_safetensors_reads_our_files(path):
    with safe_open(path, framework="np") as file:
        assert set(file.keys()) == set(ARRAYS)
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(file.get_tensor(name), array, strict=True)
        document = json.loads(file.metadata()["lamina"])
    assert document["format_version"] == 1
    assert document["role"] == "network"
    assert document["spec"] == SPEC
    assert document["lamina_version"]


def test_non_finite_arrays_are_kept(tmp_path):
    array = np.array([np.nan, np.inf, -np.inf, -0.0])
    modelfile.write(tmp_path / "m", "network", {}, {"a": array})
    assert modelfile.read(tmp_path / "m")[2]["a"].tobytes() == array.tobytes()


def test_the_same_input_gives_the_same_bytes(path, tmp_path):
    modelfile.write(tmp_path / "again", "network", SPEC, ARRAYS)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_no_arrays_is_a_valid_file(tmp_path):
    modelfile.write(str(tmp_path / "m"), "role", {}, {})
    assert modelfile.read(str(tmp_path / "m")) == ("role", {}, {})


@pytest.mark.parametrize(
    "spec",
    [
        {"x": float("nan")},
        {"x": [float("inf")]},
        {1: "a key that is no string"},
        {"x": {(1, 2): 3}},
        {"x": np.float32(1)},
        {"x": {1, 2}},
    ],
)
def test_write_refuses_a_specification_that_json_cannot_hold(tmp_path, spec):
    with pytest.raises(ModelFileError, match="JSON"):
        modelfile.write(tmp_path / "m", "network", spec, {})
    assert list(tmp_path.iterdir()) == []


def test_write_refuses_endless_nesting(tmp_path):
    spec: dict = {}
    spec["itself"] = spec
    with pytest.raises(ModelFileError, match="JSON"):
        modelfile.write(tmp_path / "m", "network", spec, {})


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("a", np.array([None])),
        ("a", np.array(["text"])),
        ("a", np.zeros(2, complex)),
        ("a", np.zeros(2, "M8[s]")),
        ("a", np.zeros((1,) * 9)),
        ("__metadata__", np.zeros(2)),
        ("", np.zeros(2)),
        ("\ud800", np.zeros(2)),
    ],
)
def test_write_refuses_arrays_that_the_format_cannot_hold(tmp_path, name, array):
    with pytest.raises(ModelFileError, match="expected array"):
        modelfile.write(tmp_path / "m", "network", {}, {name: array})
    assert list(tmp_path.iterdir()) == []


def test_write_refuses_a_header_that_read_would_refuse(tmp_path, monkeypatch):
    monkeypatch.setattr(modelfile, "MAX_HEADER_BYTES", 1000)
    with pytest.raises(ModelFileError, match="1000"):
        modelfile.write(tmp_path / "m", "network", {"x": "a" * 1000}, {})


# -------------------------------------------------------------------------------- writing safely


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(path, monkeypatch, error, step):
    before = path.read_bytes()

    def fail(*_):
        raise error

    monkeypatch.setattr(os, step, fail)
    monkeypatch.setattr(Path, step, fail, raising=False)
    with pytest.raises((ModelFileError, KeyboardInterrupt)) as caught:
        modelfile.write(path, "network", {}, {"a": np.zeros(100)})
    if isinstance(error, OSError):
        assert "No space left" in str(caught.value)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_new_file_follows_the_umask_and_an_old_one_keeps_its_mode(tmp_path):
    before = os.umask(0o027)
    try:
        modelfile.write(tmp_path / "m", "network", {}, {})
        assert stat.S_IMODE((tmp_path / "m").stat().st_mode) == 0o640
        (tmp_path / "m").chmod(0o604)
        modelfile.write(tmp_path / "m", "network", {"x": 1}, {})
        assert stat.S_IMODE((tmp_path / "m").stat().st_mode) == 0o604
    finally:
        os.umask(before)


def test_a_symbolic_link_stays_a_link(path):
    link = path.parent / "link"
    link.symlink_to(path.name)
    modelfile.write(link, "network", {"new": 1}, {})
    assert link.is_symlink()
    assert modelfile.read(path)[1] == {"new": 1}


def test_a_circle_of_links_is_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(ModelFileError, match="load"):
        modelfile.read(tmp_path / "a")
    with pytest.raises(ModelFileError, match="save"):
        modelfile.write(tmp_path / "a", "network", {}, {})


def test_a_relative_path_without_folder_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    modelfile.write("m", "network", {}, {})
    assert modelfile.read("m")[0] == "network"


@pytest.mark.parametrize("target", [".", "no/such/folder/m", "a\0b", "x" * 300, 3])
def test_write_says_which_path_cannot_be_written(tmp_path, monkeypatch, target):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelFileError, match=r"^save to .*: expected .*, got") as caught:
        modelfile.write(target, "network", {}, {})
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
