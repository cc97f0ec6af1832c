"""A model file's parts, and files that are wrong on purpose, for the tests of the model file."""

import hashlib
import json

import numpy as np

SPEC = {"widths": [3, 2], "name": "é \ud800 \"'\\", "x": None, "f": 0.1, "nested": {"a": [True]}}
ARRAYS = {
    "weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "flags": np.array([True, False, True]),
    "empty": np.zeros((0, 4)),
    "scalar": np.array(2.5),
}


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
