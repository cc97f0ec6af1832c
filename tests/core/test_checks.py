"""What users pass in is taken as it should be, or refused in one clear sentence."""

import re

import numpy as np
import pytest
import scipy.sparse
from tests.tolerances import assert_same_bits

from lamina.core import errors
from lamina.core.checks import (
    as_classes,
    as_matrix,
    as_target,
    as_weights,
    check_choice,
    check_count,
    check_number,
    resolve_rng,
)
from lamina.core.errors import (
    DataError,
    DivergenceError,
    LaminaError,
    MissingExtraError,
    ModelFileError,
    ShapeError,
    SpecError,
    require_extra,
)

SENTENCE = re.compile(r"^[\w.]+: expected [^.].*, got .*\. \S.*\.$")
X = np.arange(12.0).reshape(4, 3)


def matrix(x, **more):
    return as_matrix(x, "x", "Network.loss", **more)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "x",
    [
        X,
        X.astype(np.float32),
        np.asfortranarray(X),
        np.arange(24.0).reshape(4, 6)[:, ::2] / 2,
        X[::-1][::-1],
        X.astype(">f8"),
        X.astype(np.int8),
        X.astype(np.float16),
        X.tolist(),
        X.astype(object),
        np.frombuffer(X.tobytes()).reshape(4, 3),
    ],
)
def test_any_layout_becomes_the_same_matrix(x, dtype):
    result = matrix(x, d=3, dtype=dtype)
    assert_same_bits(result, X.astype(dtype))
    assert result.flags.c_contiguous
    assert result.dtype.isnative


def test_a_matrix_that_fits_is_not_copied_and_none_is_modified():
    assert matrix(X) is X
    frozen = X.copy()
    frozen.flags.writeable = False
    assert matrix(frozen) is frozen


def test_booleans_rows_of_none_and_huge_values_are_fine():
    assert matrix([[True, False]]).tolist() == [[1.0, 0.0]]
    assert matrix(np.zeros((0, 3))).shape == (0, 3)
    huge = np.full((2, 3), 1e308)  # the sum overflows, no value does
    assert matrix(huge) is huge


BAD_MATRICES = [
    (X[0], {}, ShapeError, r"shape \(n, d\), got \(3,\). Pass x\[None, :\] for one row"),
    (3.0, {}, ShapeError, r"got \(\)"),
    (np.zeros((2, 2, 2)), {}, ShapeError, r"got \(2, 2, 2\)"),
    (X, {"d": 4}, ShapeError, r"expected x of shape \(n, 4\), got \(4, 3\)"),
    (X[:0], {"min_rows": 1}, ShapeError, "at least 1 row, got 0"),
    ([["a", "b"]], {}, DataError, "got dtype <U1"),
    ([[1, "b"]], {}, DataError, "array of real numbers"),
    ([[1, None]], {}, DataError, r"got nan at \[0, 1\]"),
    ([[1, object()]], {}, DataError, "a list that is ragged or holds something else"),
    (np.array([[1, "b"]], dtype=object), {}, DataError, "an array of dtype object"),
    ([[1], [1, 2]], {}, DataError, "a list that is ragged"),
    (scipy.sparse.eye(3, format="csr"), {}, DataError, "make sparse matrices dense"),
    (X + 1j, {}, DataError, "got dtype complex128"),
    (np.array([["2020-01-01"]], dtype="M8[D]"), {}, DataError, "got dtype datetime64"),
    (np.where(X == 7, np.nan, X), {}, DataError, r"got nan at \[2, 1\] \(1 such value\)"),
    (np.where(X > 9, -np.inf, X), {}, DataError, r"got -inf at \[3, 1\] \(2 such values\)"),
    (X * 1e40, {"dtype": np.float32}, DataError, "Scale x: the value does not fit into float32"),
]


@pytest.mark.parametrize(("x", "more", "error", "sentence"), BAD_MATRICES)
def test_wrong_matrices_get_one_clear_sentence(x, more, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        matrix(x, **more)
    assert SENTENCE.match(str(caught.value)), caught.value
    assert str(caught.value).startswith("Network.loss: ")


def test_targets_are_matrices_and_one_column_may_be_a_vector():
    assert as_target([1, 2], 2, 1, "train").tolist() == [[1.0], [2.0]]
    assert as_target(X, 4, 3, "train") is X
    assert as_target(X[:, :1], 4, 1, "train", np.float32).dtype == np.float32


@pytest.mark.parametrize(
    ("y", "n", "d", "error", "sentence"),
    [
        ([1, 2, 3], 2, 1, ShapeError, r"expected y of shape \(2,\) or \(2, 1\), got \(3,\)"),
        ([1, 2, 3], 3, 3, ShapeError, r"expected y of shape \(3, 3\), got \(3,\)"),
        (X, 3, 4, ShapeError, r"expected y of shape \(3, 4\), got \(4, 3\)"),
        ([1, np.inf], 2, 1, DataError, r"got inf at \[1, 0\]"),
        (["a", "b"], 2, 1, DataError, "real numbers"),
        ([[1], [2, 3]], 2, 1, DataError, "ragged"),
    ],
)
def test_wrong_targets_get_one_clear_sentence(y, n, d, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        as_target(y, n, d, "train")
    assert SENTENCE.match(str(caught.value)), caught.value


def test_classes_are_int32_from_any_whole_numbers():
    for y in ([0, 2], [[0], [2]], np.array([0.0, 2.0]), np.array([0, 2], dtype=np.uint64)):
        assert_same_bits(as_classes(y, 2, 3, "train"), np.array([0, 2], dtype=np.int32))
    assert as_classes([True, False], 2, 2, "train").tolist() == [1, 0]
    assert as_classes([], 0, 2, "train").shape == (0,)


def test_classes_beyond_int32_do_not_wrap_around():
    with pytest.raises(DataError, match="got 4294967296 to 4294967296"):
        as_classes([2**32], 1, 3, "train")


def test_weights_are_vectors_of_the_dtype():
    assert as_weights(None, 3, "train") is None
    weight = as_weights([0, 1, 2], 3, "train", np.float32)
    assert_same_bits(weight, np.array([0, 1, 2], dtype=np.float32))


@pytest.mark.parametrize(
    ("weight", "error", "sentence"),
    [
        ([1, 2], ShapeError, r"expected sample_weight of shape \(3,\), got \(2,\)"),
        ([[1], [2], [3]], ShapeError, r"got \(3, 1\)"),
        ([1, 2, -0.5], DataError, "got a minimum of -0.5"),
        ([0, 0, 0], DataError, "got only zeros"),
        ([1, 2, np.nan], DataError, r"got nan at \[2\]"),
        ("abc", DataError, "got dtype <U3"),
    ],
)
def test_wrong_weights_get_one_clear_sentence(weight, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        as_weights(weight, 3, "train")
    assert SENTENCE.match(str(caught.value)), caught.value


def test_choices_counts_and_numbers_pass_through():
    assert check_choice("b", ("a", "b"), "letter", "f") == "b"
    assert check_count(np.int64(3), "n", "f") == 3
    assert type(check_count(np.int64(3), "n", "f")) is int
    assert check_count(0, "n", "f", low=0) == 0
    assert check_number(np.float32(0.5), "p", "f", 0, 1) == 0.5
    assert check_number(1, "p", "f", 0, 1) == 1.0
    assert type(check_number(1, "p", "f")) is float


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: check_choice("c", ("a", "b"), "letter", "f"), "one of a, b, got 'c'"),
        (lambda: check_choice(["a"], ("a", "b"), "letter", "f"), r"got \['a'\]"),
        (lambda: check_count(0, "n", "f"), "n to be a whole number of at least 1, got 0"),
        (lambda: check_count(1.0, "n", "f"), "got 1.0"),
        (lambda: check_count(True, "n", "f"), "got True"),
        (lambda: check_count("3", "n", "f"), "got '3'"),
        (lambda: check_number(1.0, "p", "f", 0, 1, "left"), r"in \[0, 1\), got 1.0"),
        (lambda: check_number(0, "p", "f", 0, 1, "right"), r"in \(0, 1\], got 0"),
        (lambda: check_number(0, "p", "f", 0, 1, "neither"), r"in \(0, 1\), got 0"),
        (lambda: check_number(float("nan"), "p", "f"), r"in \(-inf, inf\), got nan"),
        (lambda: check_number(float("inf"), "p", "f", 0), r"in \[0, inf\), got inf"),
        (lambda: check_number("1", "p", "f"), "got '1'"),
        (lambda: check_number(False, "p", "f"), "got False"),
        (lambda: check_number(None, "p", "f"), "got None"),
        (lambda: resolve_rng("0"), "got '0'"),
        (lambda: resolve_rng(-1), "got -1"),
        (lambda: resolve_rng(True), "got True"),
    ],
)
def test_wrong_options_get_one_clear_sentence(call, sentence):
    with pytest.raises(SpecError, match=sentence) as caught:
        call()
    assert SENTENCE.match(str(caught.value)), caught.value


def test_rng_is_a_seed_or_a_generator_and_never_global():
    generator = np.random.default_rng(0)
    assert resolve_rng(generator) is generator
    assert resolve_rng(7).random() == resolve_rng(np.int32(7)).random()
    assert resolve_rng(None).random() != resolve_rng(None).random()


def test_every_error_is_a_lamina_error_and_what_python_expects():
    for error in (ShapeError, SpecError, DataError, ModelFileError):
        assert issubclass(error, LaminaError)
        assert issubclass(error, ValueError)
    assert issubclass(MissingExtraError, (LaminaError, ImportError))
    assert issubclass(DivergenceError, (LaminaError, ArithmeticError))


def test_a_missing_extra_says_how_to_install_it():
    assert require_extra("lamina.core.errors", "onnx") is errors
    with pytest.raises(MissingExtraError, match=r'pip install "lamina\[onnx\]"') as caught:
        require_extra("package_that_nobody_has.part", "onnx")
    assert SENTENCE.match(str(caught.value))


def test_a_broken_package_is_not_reported_as_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import something_it_lacks\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="something_it_lacks") as caught:
        require_extra("broken_package", "onnx")
    assert not isinstance(caught.value, MissingExtraError)
