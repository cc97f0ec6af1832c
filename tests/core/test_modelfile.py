"""The model file: round trips, and every way in which a file can be wrong.

The oracle of the format is the safetensors package, which reads what we wrote.
"""

import hashlib
import json
import os
import pickle
import stat
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open

from lamina.core import modelfile
from lamina.core.errors import ModelFileError

SPEC = {"widths": [3, 2], "name": "é \ud800 \"'\\", "x": None, "f": 0.1, "nested": {"a": [True]}}
ARRAYS = {
    "weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "flags": np.array([True, False, True]),
    "empty": np.zeros((0, 4)),
    "scalar": np.array(2.5),
}
DTYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", ">f8", ">i4"]

in_tmp_path = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "model.lamina"
    modelfile.write(target, "network", SPEC, ARRAYS)
    return target


def assert_same_arrays(got, expected):
    assert set(got) == set(expected)
    for name, array in expected.items():
        assert got[name].dtype == array.dtype.newbyteorder("=")
        assert got[name].shape == array.shape
        assert got[name].flags.c_contiguous
        assert got[name].flags.writeable
        np.testing.assert_array_equal(got[name], array, strict=array.dtype.isnative)


def forge(path, tensors, document=None, data=b"", metadata=None):
    """Write a file with any header, whose checksum is right."""
    if document is None:
        document = {"format_version": 1, "role": "network", "lamina_version": "0", "spec": {}}
    if isinstance(document, dict):
        document = json.dumps({"sha256": "0" * 64, **document})
    metadata = {"lamina": document} if metadata is None else metadata
    if isinstance(tensors, dict):
        tensors = json.dumps({"__metadata__": metadata, **tensors})
    elif isinstance(tensors, str):
        tensors = tensors.replace("METADATA", '"__metadata__":' + json.dumps(metadata))
    header = tensors.encode() if isinstance(tensors, str) else tensors
    content = len(header).to_bytes(8, "little") + header + data
    digest = hashlib.sha256(content).hexdigest().encode()
    path.write_bytes(content.replace(b"0" * 64, digest, 1))


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


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


# ---------------------------------------------------------------------------------- wrong files


def test_every_changed_bit_is_noticed(path):
    good = path.read_bytes()
    for i in range(len(good)):
        for bit in range(8):
            bad = bytearray(good)
            bad[i] ^= 1 << bit
            path.write_bytes(bad)
            with pytest.raises(ModelFileError):
                modelfile.read(path)


def test_every_truncation_and_any_tail_is_noticed(path):
    good = path.read_bytes()
    for bad in [*(good[:n] for n in range(len(good))), good + b"\0", good + good]:
        path.write_bytes(bad)
        with pytest.raises(ModelFileError):
            modelfile.read(path)


@in_tmp_path
@given(data=st.data())
def test_any_splice_of_bytes_is_noticed(path, data):
    good = path.read_bytes()
    start = data.draw(st.integers(0, len(good)))
    stop = data.draw(st.integers(start, len(good)))
    bad = good[:start] + data.draw(st.binary(max_size=40)) + good[stop:]
    target = path.parent / "spliced"
    target.write_bytes(bad)
    if bad == good:
        modelfile.read(target)
    else:
        with pytest.raises(ModelFileError):
            modelfile.read(target)


@in_tmp_path
@given(content=st.binary(max_size=300))
def test_random_bytes_are_refused(tmp_path, content):
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(ModelFileError):
        modelfile.read(tmp_path / "m")


@in_tmp_path
@given(data=st.data())
def test_a_forged_header_gives_arrays_or_one_sentence(tmp_path, data):
    sizes = st.integers(-1, 9) | st.sampled_from([2**31, 2**62, 2**63, 2**64, 10**30, 1.0, True])
    tensors = st.dictionaries(
        st.sampled_from(["a", "b", "__metadata__"]),
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from([*modelfile._DTYPES, "BF16", "F8_E4M3", 4, None]),
                "shape": st.lists(sizes, max_size=9) | st.none(),
                "data_offsets": st.lists(sizes, max_size=3) | st.integers(),
            }
        )
        | st.none(),
    )
    forge(tmp_path / "m", data.draw(tensors), data=bytes(data.draw(st.integers(0, 16))))
    try:
        _, _, arrays = modelfile.read(tmp_path / "m")
    except ModelFileError:
        return
    assert sum(array.nbytes for array in arrays.values()) <= 16


def test_a_forged_file_that_is_consistent_loads(tmp_path):
    forge(tmp_path / "m", {"a": entry()}, data=b"\0\0\x80?\0\0\0@")
    np.testing.assert_array_equal(modelfile.read(tmp_path / "m")[2]["a"], [1.0, 2.0])


HOSTILE_TENSORS = {
    "a huge shape": {"a": entry(shape=[2**40], offsets=[0, 8])},
    "an overflowing shape": {"a": entry(shape=[2**62, 4], offsets=[0, 0])},
    "too many axes": {"a": entry(shape=[1] * 70 + [2])},
    "a negative axis": {"a": entry(shape=[-1, -2])},
    "a fractional axis": {"a": entry(shape=[2.0])},
    "a true axis": {"a": entry("F64", [True])},
    "negative offsets": {"a": entry(offsets=[-8, 0])},
    "reversed offsets": {"a": entry(offsets=[8, 0])},
    "a gap": {"a": entry(shape=[1], offsets=[4, 8])},
    "an overlap": {"a": entry(), "b": entry()},
    "bytes left over": {"a": entry(shape=[1], offsets=[0, 4])},
    "more than there is": {"a": entry(shape=[4], offsets=[0, 16])},
    "an unknown dtype": {"a": entry("BF16", [4])},
    "a dtype that is a list": {"a": {**entry(), "dtype": []}},
    "an unknown field": {"a": {**entry(), "extra": 1}},
    "a missing field": {"a": {"dtype": "F32", "shape": [2]}},
    "a number for a tensor": {"a": 3},
    "neither true nor false": {"a": entry("BOOL", [8])},
    "the same name twice": f'{{METADATA,"a":{json.dumps(entry())},"a":{json.dumps(entry())}}}',
    "the same field twice": '{METADATA,"a":{"dtype":"F32","dtype":"F32","shape":[2],'
    '"data_offsets":[0,8]}}',
    "metadata twice": f'{{METADATA,METADATA,"a":{json.dumps(entry())}}}',
    "NaN": '{METADATA,"a":NaN}',
    "an infinite number": '{METADATA,"a":1e999}',
    "a number of a million digits": '{METADATA,"a":' + "1" * 1_000_000 + "}",
    "endless nesting": '{METADATA,"a":' + "[" * 1_000_000,
    "closed endless nesting": '{METADATA,"a":' + "[" * 100_000 + "]" * 100_000 + "}",
    "nested objects": '{METADATA,"a":' + '{"a":' * 100_000 + "1" + "}" * 100_001,
    "a list": "[1]",
    "no JSON": "{",
    "an empty header": "",
    "bad UTF-8": b'{"\xff":1}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
}


@pytest.mark.parametrize("tensors", HOSTILE_TENSORS.values(), ids=HOSTILE_TENSORS)
def test_a_hostile_header_is_refused(tmp_path, tensors):
    forge(tmp_path / "m", tensors, data=b"\x02" * 8)
    with pytest.raises(ModelFileError, match=r"^load .*: expected .*, got .*\. Give") as caught:
        modelfile.read(tmp_path / "m")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_huge_shape_with_an_axis_of_0_is_refused(tmp_path):
    forge(tmp_path / "m", {"a": entry(shape=[0, 2**62, 4], offsets=[0, 0])})
    with pytest.raises(ModelFileError, match="shape does not fit"):
        modelfile.read(tmp_path / "m")


@pytest.mark.parametrize("fault", ["a gap", "an overlap"])
def test_a_gap_or_overlap_is_found_before_anything_is_read(tmp_path, fault):
    forge(tmp_path / "m", HOSTILE_TENSORS[fault], data=bytes(8))
    with pytest.raises(ModelFileError, match="gap or overlap"):
        modelfile.read(tmp_path / "m")


GOOD = {"format_version": 1, "role": "network", "lamina_version": "0", "spec": {}}
HOSTILE_DOCUMENTS = {
    "no version": {"role": "network", "lamina_version": "0", "spec": {}},
    "version true": {**GOOD, "format_version": True},
    "version 0": {**GOOD, "format_version": 0},
    "version 1.0": {**GOOD, "format_version": 1.0},
    "a role that is a list": {**GOOD, "role": ["network"]},
    "a spec that is a list": {**GOOD, "spec": []},
    "a checksum that is a number": {**GOOD, "sha256": 0},
    "a checksum of capital letters": {**GOOD, "sha256": "A" * 64},
    "an unknown field": {**GOOD, "extra": 1},
    "a list": "[]",
    "not JSON": "lamina",
    "endless nesting": "[" * 1_000_000,
    "a key twice": '{"role":"a","role":"b"}',
    "a number": 1,
}


@pytest.mark.parametrize("document", HOSTILE_DOCUMENTS.values(), ids=HOSTILE_DOCUMENTS)
def test_a_hostile_document_is_refused(tmp_path, document):
    forge(tmp_path / "m", {}, document)
    with pytest.raises(ModelFileError, match="expected a lamina model file"):
        modelfile.read(tmp_path / "m")


@pytest.mark.parametrize("metadata", [3, [], {}, {"format": "pt"}, {"lamina": {}}])
def test_a_safetensors_file_of_another_program_is_refused(tmp_path, metadata):
    forge(tmp_path / "m", {"a": entry()}, metadata=metadata, data=bytes(8))
    with pytest.raises(ModelFileError, match="lamina's metadata"):
        modelfile.read(tmp_path / "m")


def test_a_second_copy_of_the_checksum_is_refused(tmp_path):
    document = json.dumps({"sha256": "a" * 64, **GOOD, "role": "a" * 64})
    forge(tmp_path / "m", {}, document)
    with pytest.raises(ModelFileError, match="checksum"):
        modelfile.read(tmp_path / "m")


def test_a_newer_format_says_which_came_and_to_upgrade(tmp_path):
    future = {"format_version": 7, "lamina_version": "3.1", "checksum": "of another kind"}
    forge(tmp_path / "m", {"a": {"dtype": "F4"}}, future)
    with pytest.raises(ModelFileError) as caught:
        modelfile.read(tmp_path / "m")
    sentence = str(caught.value)
    assert "version 1 or older" in sentence
    assert "got version 7 (written by lamina '3.1')" in sentence
    assert "pip install --upgrade lamina" in sentence


def test_a_pickle_is_refused_and_never_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the pickle ran",))

    (tmp_path / "m").write_bytes(pickle.dumps({"a": Trap()}))
    with pytest.raises(ModelFileError):
        modelfile.read(tmp_path / "m")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelFileError, match=r"load '.*absent\.lamina'.*no such file"):
        modelfile.read(tmp_path / "absent.lamina")


def test_a_folder_is_named(tmp_path):
    with pytest.raises(ModelFileError, match="folder"):
        modelfile.read(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelFileError, match="device"):
        modelfile.read(tmp_path / "pipe")
    with pytest.raises(ModelFileError, match="device"):
        modelfile.write(tmp_path / "pipe", "network", {}, {})


@pytest.mark.parametrize("target", ["a\0b", "x" * 5000, 0, None, "a\nb"])
def test_a_path_that_is_none_is_refused_in_one_line(target):
    with pytest.raises(ModelFileError, match=r"^load .*expected") as caught:
        modelfile.read(target)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may read all")
def test_an_unreadable_file_is_named(path):
    path.chmod(0)
    with pytest.raises(ModelFileError, match="Permission"):
        modelfile.read(path)


@pytest.mark.parametrize(
    "content",
    [
        (2**63).to_bytes(8, "little") + b"{}",
        (modelfile.MAX_HEADER_BYTES + 1).to_bytes(8, "little") + b" " * 100,
    ],
)
def test_a_huge_header_takes_no_memory(tmp_path, content):
    with (tmp_path / "m").open("wb") as file:
        file.write(content)
        file.truncate(10 * modelfile.MAX_HEADER_BYTES)  # sparse
    assert peak_bytes_of_a_refused_read(tmp_path / "m") < 2**20


def test_a_huge_shape_takes_no_memory(tmp_path):
    forge(tmp_path / "m", {"a": entry("U8", [2**33], [0, 2**33])}, data=bytes(8))
    assert peak_bytes_of_a_refused_read(tmp_path / "m") < 2**20


def test_the_worst_header_takes_a_bounded_multiple_of_its_size(tmp_path):
    n = 2**18
    forge(tmp_path / "m", '{METADATA,"a":[%s[]]}' % ("[]," * n))
    assert peak_bytes_of_a_refused_read(tmp_path / "m") < 40 * 3 * n


def peak_bytes_of_a_refused_read(path):
    tracemalloc.start()
    try:
        with pytest.raises(ModelFileError):
            modelfile.read(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
