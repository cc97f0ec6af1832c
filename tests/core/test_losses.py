"""Losses against PyTorch, scikit-learn, SciPy and finite differences."""

import numpy as np
import pytest
import scipy.special
import torch
import torch.nn.functional as F  # noqa: N812
from sklearn.metrics import log_loss, mean_pinball_loss
from tests.tolerances import assert_close, difference_step, finite_difference, rounding

import lamina.core.losses as losses
from lamina.core.errors import DataError, ShapeError, SpecError
from lamina.core.functions import OUTPUTS
from lamina.core.losses import LOSSES, CrossEntropy, Huber, Pinball, resolve_loss

RNG = np.random.default_rng(0)
N, D = 40, 6
Z = RNG.normal(size=(N, D))
V = RNG.uniform(0.2, 2.0, D)
ONES = np.ones(D)
F64 = rounding(np.float64, 4 * D)
REAL = RNG.normal(size=(N, D))
SHARES = RNG.dirichlet(ONES, N)
CLASSES = RNG.integers(0, D, N)

CASES = [
    (losses.SquaredError(), REAL),
    (losses.AbsoluteError(), REAL),
    (Huber(0.7), REAL),
    (losses.BinaryCrossEntropy(), RNG.uniform(size=(N, D))),
    (CrossEntropy(), CLASSES),
    (CrossEntropy(label_smoothing=0.1), SHARES),
    (losses.Poisson(), RNG.poisson(2.0, (N, D)).astype(float)),
    (Pinball((0.1, 0.5, 0.8)), REAL[:, :2]),
]
PAIRS = [(loss, y, OUTPUTS[name]) for loss, y in CASES for name in loss.outputs]


def reduce_mean(loss, y, output="identity"):
    return loss.value(Z, y, ONES, OUTPUTS[output]).mean()


@pytest.mark.parametrize(
    ("loss", "theirs"),
    [(losses.SquaredError(), F.mse_loss), (losses.AbsoluteError(), F.l1_loss)]
    + [
        (Huber(delta), lambda a, b, d=delta: F.huber_loss(a, b, delta=d)) for delta in (0.3, 1.0, 9)
    ],
)
@pytest.mark.parametrize("output", ["identity", "sigmoid", "exp"])
def test_regression_losses_match_pytorch(loss, theirs, output):
    y_pred = OUTPUTS[output].value(Z)
    expected = theirs(torch.tensor(y_pred), torch.tensor(REAL)).item()
    assert_close(reduce_mean(loss, REAL, output), expected, F64)


def test_binary_cross_entropy_matches_pytorch():
    y = CASES[3][1]
    expected = F.binary_cross_entropy_with_logits(torch.tensor(Z), torch.tensor(y)).item()
    assert_close(reduce_mean(losses.BinaryCrossEntropy(), y, "sigmoid"), expected, F64)


def test_poisson_matches_pytorch():
    y = CASES[6][1]
    expected = F.poisson_nll_loss(torch.tensor(Z), torch.tensor(y), log_input=True).item()
    assert_close(reduce_mean(losses.Poisson(), y, "exp"), expected, F64)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("y", [CLASSES, SHARES], ids=["classes", "probabilities"])
def test_cross_entropy_matches_pytorch(smoothing, y):
    expected = F.cross_entropy(torch.tensor(Z), torch.tensor(y), label_smoothing=smoothing).item()
    assert_close(reduce_mean(CrossEntropy(smoothing), y, "softmax"), expected, F64)


def test_cross_entropy_matches_scikit_learn():
    expected = log_loss(CLASSES, scipy.special.softmax(Z, axis=1), labels=range(D))
    assert_close(reduce_mean(CrossEntropy(), CLASSES, "softmax"), expected, F64)


def test_pinball_matches_scikit_learn_and_its_column_order():
    levels = (0.1, 0.5, 0.8)
    y = REAL[:, :2]
    expected = np.mean(
        [
            mean_pinball_loss(y[:, t], Z[:, 3 * t + k], alpha=level)
            for t in range(2)
            for k, level in enumerate(levels)
        ]
    )
    assert_close(reduce_mean(Pinball(levels), y), expected, F64)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("loss", "y", "output"), PAIRS, ids=lambda p: p.name if hasattr(p, "name") else ""
)
def test_gradient_matches_finite_differences(loss, y, output, weighted):
    v = V if weighted else ONES
    h = difference_step()
    numeric = np.empty_like(Z)
    for j in range(D):  # rows do not touch each other, so all at once
        shift = h * np.eye(D)[j]
        change = loss.value(Z + shift, y, v, output) - loss.value(Z - shift, y, v, output)
        numeric[:, j] = change / (2 * h)
    assert_close(loss.gradient(Z, y, v, output), numeric, finite_difference(D))


def test_output_weights_multiply_the_loss_of_their_output():
    one = np.eye(D)
    for loss, y, output in PAIRS:
        parts = sum(V[j] * loss.value(Z, y, one[j], output) for j in range(D))
        assert_close(loss.value(Z, y, V, output), parts, F64, loss.name)


def test_saturated_outputs_keep_an_exact_gradient():
    z = np.array([[-800.0, 800.0]])
    sigmoid, softmax = OUTPUTS["sigmoid"], OUTPUTS["softmax"]
    bce, ce = losses.BinaryCrossEntropy(), CrossEntropy()
    y = np.array([[1.0, 0.0]])
    assert bce.value(z, y, np.ones(2), sigmoid) == [800.0]
    assert (bce.gradient(z, y, np.ones(2), sigmoid) == [[-0.5, 0.5]]).all()
    assert ce.value(z, np.array([0]), np.ones(2), softmax) == [1600.0]
    assert (ce.gradient(z, np.array([0]), np.ones(2), softmax) == [[-1.0, 1.0]]).all()


def test_subgradients_at_the_kinks_are_zero():
    y = np.zeros((1, 1))
    for loss in (losses.AbsoluteError(), Pinball((0.3,)), Huber()):
        assert loss.gradient(y, y, np.ones(1), OUTPUTS["identity"]) == [[0.0]]


def test_a_nan_prediction_gives_a_nan_loss():
    for loss, y, output in PAIRS:
        z = np.where(np.arange(N)[:, np.newaxis] == 3, np.nan, Z)
        value = loss.value(z, y, ONES, output)
        assert np.isnan(value[3]), loss.name
        assert np.isfinite(np.delete(value, 3)).all(), loss.name


def test_names_params_and_default_pairing():
    assert list(LOSSES) == [
        "squared_error",
        "absolute_error",
        "huber",
        "binary_cross_entropy",
        "cross_entropy",
        "poisson",
        "pinball",
    ]
    assert Huber(2).params == [2.0]
    assert Pinball((0.1, 0.9)).params == [0.1, 0.9]
    assert Pinball(0.9).levels == (0.9,)
    assert Pinball(np.array([0.25, 0.75])).levels == (0.25, 0.75)
    assert CrossEntropy(0.1).params == [0.1]
    assert losses.SquaredError().params == []
    defaults = {output: resolve_loss(None, output).name for output in OUTPUTS}
    assert defaults == {
        "identity": "squared_error",
        "sigmoid": "binary_cross_entropy",
        "softmax": "cross_entropy",
        "exp": "poisson",
        "step": "squared_error",
    }
    huber = Huber(3.0)
    assert resolve_loss(huber, "softmax") is huber


@pytest.mark.parametrize(
    ("loss", "output", "sentence"),
    [
        ("mse", "identity", "expected loss to be one of squared_error, .* got 'mse'"),
        (3, "identity", "expected loss to be one of"),
        (None, "softplus", "expected output to be one of"),
        ("cross_entropy", "sigmoid", "expected output softmax .* got output sigmoid"),
        ("binary_cross_entropy", "identity", "expected output sigmoid"),
        (losses.Poisson(), "identity", "expected output exp"),
    ],
)
def test_wrong_losses_are_named(loss, output, sentence):
    with pytest.raises(SpecError, match=sentence):
        resolve_loss(loss, output, where="train")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Huber(0.0),
        lambda: Huber(-1),
        lambda: Huber(float("inf")),
        lambda: Huber("1"),
        lambda: Pinball(()),
        lambda: Pinball((0.5, 1.0)),
        lambda: Pinball("ab"),
        lambda: Pinball(None),
        lambda: CrossEntropy(1.0),
        lambda: CrossEntropy(-0.1),
    ],
)
def test_wrong_parameters_of_losses_are_refused(make):
    with pytest.raises(SpecError, match=r"expected .*, got .*\. [A-Z].*\.$"):
        make()


def test_targets_come_back_as_the_engine_takes_them():
    check = CrossEntropy().check_target
    for y in ([0, 2, 1], np.array([0.0, 2.0, 1.0]), np.array([[0], [2], [1]], dtype=np.uint8)):
        classes = check(y, 3, 3, np.float32, "train")
        assert classes.dtype == np.int32
        assert classes.tolist() == [0, 2, 1]
    rows = check(np.eye(3), 3, 3, np.float32, "train")
    assert rows.dtype == np.float32
    assert rows.shape == (3, 3)
    assert Pinball((0.1, 0.9)).check_target([1, 2, 3], 3, 2, np.float64, "train").shape == (3, 1)
    assert losses.SquaredError().check_target([1, 2], 2, 1, np.float32, "train").shape == (2, 1)


@pytest.mark.parametrize(
    ("loss", "y", "error", "sentence"),
    [
        (CrossEntropy(), [0, 1, 3], DataError, "expected classes 0 to 2 in y, got 0 to 3"),
        (CrossEntropy(), [0, -1, 2], DataError, "got -1 to 2"),
        (CrossEntropy(), [0, 0.5, 2], DataError, "expected whole numbers"),
        (CrossEntropy(), [0, np.nan, 2], DataError, "expected whole numbers"),
        (CrossEntropy(), ["a", "b", "c"], DataError, "expected y as an array of"),
        (CrossEntropy(), [0, 1], ShapeError, r"expected y of shape \(3,\), got \(2,\)"),
        (CrossEntropy(), np.full((3, 3), 0.5), DataError, "sum is off by 0.5"),
        (CrossEntropy(), np.array([[2.0, -1, 0]] * 3), DataError, r"expected y in \[0, 1\]"),
        (losses.BinaryCrossEntropy(), [[0, 1, 2]] * 3, DataError, r"in \[0, 1\] .*got 0 to 2"),
        (losses.Poisson(), [[0, 1, -2]] * 3, DataError, r"in \[0, inf\] .*got -2 to 1"),
        (losses.SquaredError(), [[0, 1]] * 3, ShapeError, r"\(3, 3\), got \(3, 2\)"),
        (Pinball((0.1, 0.9)), [[0, 1]] * 3, SpecError, "multiple of the 2 levels, got 3"),
    ],
)
def test_wrong_targets_get_one_clear_sentence(loss, y, error, sentence):
    with pytest.raises(error, match=f"^(train|Pinball): .*{sentence}"):
        loss.check_target(y, 3, 3, np.float32, "train")
