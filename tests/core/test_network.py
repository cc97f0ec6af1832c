"""Network: construction, calling with whatever comes, loss and gradients, parameters, copies."""

import copy
import pickle
import pickletools
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from tests.tolerances import assert_close, assert_same_bits, rounding

import lamina
from lamina.core.engine import SERIAL_MULTIPLICATIONS

D_IN, D_OUT = 4, 3


def make(**kwargs):
    kwargs = {"activation": "tanh", "dtype": "float64", "rng": 0} | kwargs
    return lamina.Network(D_IN, (6, 5), D_OUT, **kwargs)


def rows(n=7, seed=1):
    return np.random.default_rng(seed).normal(size=(n, D_IN))


def by_hand(net, x):
    h = np.asarray(x, np.float64)
    for l in range(2):  # noqa: E741
        h = np.tanh(h @ net.weights[l].T.astype(np.float64) + net.biases[l])
    return h @ net.weights[2].T.astype(np.float64) + net.biases[2]


# --- construction ------------------------------------------------------------------------------


def test_no_hidden_layer_is_a_linear_model():
    net = lamina.Network(3, (), 2, dtype="float64", rng=0)
    net.biases[0] = [1.0, -1.0]
    x = np.eye(3)
    assert_close(net(x), net.weights[0].T + net.biases[0], rounding("float64", 3))
    assert net.n_params == 8


def test_the_seed_decides_the_first_weights():
    assert_same_bits(make(rng=5).theta, make(rng=np.random.default_rng(5)).theta)
    assert (make(rng=5).theta != make(rng=6).theta).any()
    assert (make(rng=None).theta != make(rng=None).theta).any()


@pytest.mark.parametrize(
    "change",
    [
        {"d_in": 0},
        {"d_in": 2.5},
        {"d_out": -1},
        {"d_out": True},
        {"widths": (0,)},
        {"widths": (4, "5")},
        {"widths": "45"},
        {"activation": "swish"},
        {"activation": ("relu",)},
        {"activation": None},
        {"output": "logits"},
        {"skips": {1: (0,)}},
        {"skips": {3: (2,)}},
        {"skips": {4: (0,)}},
        {"skips": {3: (0, 0)}},
        {"skips": [3, 0]},
        {"residual": "yes"},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"dropout": "0.1"},
        {"encoding": "fourier"},
        {"dtype": "float16"},
        {"dtype": int},
        {"rng": "seed"},
        {"rng": -1},
    ],
    ids=str,
)
def test_a_bad_argument_gives_one_sentence(change):
    arguments = {"d_in": 4, "widths": (6, 5), "d_out": 3} | change
    with pytest.raises(lamina.SpecError, match=r"^\w+: expected .*, got .*\. [A-Z].*\.$") as error:
        lamina.Network(**arguments)
    assert isinstance(error.value, ValueError)
    assert "\n" not in str(error.value)


def test_repr_says_what_it_is():
    net = make(skips={3: (0,)}, residual=True, dropout=0.5, output="softmax")
    text = repr(net)
    for part in ("4, (6, 5), 3", "'tanh'", "'softmax'", "{3: (0,)}", "residual", "0.5", "float64"):
        assert part in text


# --- calling -----------------------------------------------------------------------------------


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


FORMS = {
    "clean": lambda x: x,
    "fortran": np.asfortranarray,
    "read_only": read_only,
    "reversed": lambda x: x[::-1].copy()[::-1],
    "strided": lambda x: np.repeat(np.repeat(x, 2, axis=0), 3, axis=1)[::2, ::3],
    "list": lambda x: x.tolist(),
    "dataframe": pd.DataFrame,
    "object": lambda x: x.astype(object),
    "big_endian": lambda x: x.astype(">f8"),
    "longdouble": lambda x: x.astype(np.longdouble),
    "subclass": lambda x: x.view(np.ma.MaskedArray),
    "torch": torch.tensor,
    "misaligned": lambda x: (
        np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view("f8").reshape(x.shape)
    ),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", FORMS)
def test_any_form_of_x_gives_the_same_bits(form, dtype):
    net = make(dtype=dtype)
    x = rows()
    y_pred = net(FORMS[form](x))
    assert type(y_pred) is np.ndarray
    assert y_pred.flags.writeable
    assert_same_bits(y_pred, net(x))
    assert_close(y_pred, by_hand(net, x.astype(dtype)), rounding(dtype, 16))


def test_float32_rows_in_a_float64_network_are_converted_and_the_other_way_round():
    x = rows().astype(np.float32)
    assert_same_bits(make()(x), make()(x.astype(np.float64)))
    assert make(dtype="float32")(rows()).dtype == np.float32


def test_whole_numbers_and_booleans_are_numbers():
    net = make()
    x = np.array([[0, 1, 1, 0], [1, 1, 0, 0]])
    assert_same_bits(net(x), net(x.astype(float)))
    assert_same_bits(net(x.astype(bool)), net(x.astype(float)))


@pytest.mark.parametrize("empty", [np.empty((0, D_IN)), np.empty((0, D_IN), np.float32)])
def test_no_rows_give_no_rows(empty):
    assert make()(empty).shape == (0, D_OUT)
    assert [z.shape for z in make().trace(empty).z] == [(0, 6), (0, 5), (0, 3)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_rows_bits_depend_neither_on_its_batch_nor_on_its_place(dtype):
    net = lamina.Network(D_IN, (33, 17), D_OUT, activation="gelu", dtype=dtype, rng=0)
    n = 2 * SERIAL_MULTIPLICATIONS // net.n_params  # enough for several threads
    x = rows(n)
    whole = net(x)
    for i in (0, 1, 255, 256, n // 2 + 1, n - 1):
        assert_same_bits(net(x[i : i + 1])[0], whole[i])
    assert_same_bits(net(x[::-1])[::-1], whole)


def test_prediction_is_total():
    x = rows(3)
    x[1, 2] = np.nan
    net = make()
    y_pred = net(x)
    assert np.isnan(y_pred[1]).all()
    clean = net(rows(3))
    assert_same_bits(y_pred[[0, 2]], clean[[0, 2]])
    big = make(dtype="float32")(np.full((1, D_IN), 1e300))  # infinity in float32
    assert big.shape == (1, D_OUT)


@pytest.mark.parametrize("bad", [rows()[:, :3], rows()[0], rows()[None], np.float64(1.0), [[]]])
def test_a_wrong_shape_gives_one_sentence(bad):
    pattern = r"^Network: expected x of shape \(n, 4\), got \(.*\)\. .*\.$"
    with pytest.raises(lamina.ShapeError, match=pattern):
        make()(bad)


@pytest.mark.parametrize("bad", [[["a"] * 4], [[1, 2], [3]], np.ones((1, 4), complex), None, {}])
def test_what_is_not_numbers_gives_one_sentence(bad):
    with pytest.raises((lamina.DataError, lamina.ShapeError), match=r"^Network: expected .*\.$"):
        make()(bad)


# --- trace, loss, gradients --------------------------------------------------------------------


def test_trace_has_every_layer():
    net = make(output="softmax")
    x = rows()
    trace = net.trace(x)
    assert_close(trace.h[0], np.tanh(x @ net.weights[0].T + net.biases[0]), rounding("float64", 6))
    assert_close(trace.z[2], by_hand(net, x), rounding("float64", 16))
    assert_close(trace.h[2], net(x), rounding("float64", 16))
    assert len(trace.z) == len(trace.h) == 3


def test_loss_and_gradients_match_pytorch():
    net = make(output="softmax")
    x, y = rows(), np.array([0, 1, 2, 2, 1, 0, 2])
    w = np.linspace(0.5, 2, 7)
    parts = [torch.tensor(a, requires_grad=True) for a in [*net.weights, *net.biases]]
    x_torch = torch.tensor(x, requires_grad=True)
    h = x_torch
    for l in range(2):  # noqa: E741
        h = torch.tanh(h @ parts[l].T + parts[3 + l])
    each = torch.nn.functional.cross_entropy(
        h @ parts[2].T + parts[5], torch.tensor(y), reduction="none"
    )
    loss = (torch.tensor(w) * each).sum() / w.sum()
    loss.backward()
    gradients = net.gradients(x, y, sample_weight=w)
    tolerance = rounding("float64", 16)
    for actual, part in zip([*gradients.weights, *gradients.biases], parts, strict=True):
        assert_close(actual, part.grad.numpy(), tolerance)
    assert_close(gradients.x, x_torch.grad.numpy(), tolerance)
    assert_close(gradients.loss, loss.item(), tolerance)
    assert_close(net.loss(x, y, sample_weight=w), loss.item(), tolerance)


def test_the_loss_follows_the_output_unit_or_the_argument():
    x = rows()
    net = make()
    y = rows(seed=2)[:, :D_OUT]
    residual = net(x) - y
    tolerance = rounding("float64", 20)
    assert_close(net.loss(x, y), (residual**2).mean(), tolerance)
    assert_close(net.loss(x, y, "absolute_error"), np.abs(residual).mean(), tolerance)
    wide = lamina.Huber(100.0)
    assert_close(net.loss(x, y, wide), (residual**2).mean() / 2, tolerance)
    counts = make(output="exp")
    assert_close(
        counts.loss(x, np.abs(y)), (counts(x) - np.abs(y) * np.log(counts(x))).mean(), tolerance
    )


NAN = rows()
NAN[2, 1] = np.nan
INF = rows()
INF[0, 0] = np.inf
Y = rows(seed=2)[:, :D_OUT]


@pytest.mark.parametrize("method", ["loss", "gradients"])
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((NAN, Y), lamina.DataError),
        ((INF, Y), lamina.DataError),
        ((rows(), np.where(Y > 1, np.nan, Y)), lamina.DataError),
        ((rows()[:, :2], Y), lamina.ShapeError),
        ((rows(), Y[:3]), lamina.ShapeError),
        ((rows(), Y[:, 0]), lamina.ShapeError),
        ((np.empty((0, D_IN)), np.empty((0, D_OUT))), lamina.ShapeError),
        ((rows(), Y, "mean_error"), lamina.SpecError),
        ((rows(), Y, "cross_entropy"), lamina.SpecError),
        ((rows(), Y, None, -np.ones(7)), lamina.DataError),
        ((rows(), Y, None, np.zeros(7)), lamina.DataError),
        ((rows(), Y, None, np.ones(6)), lamina.ShapeError),
    ],
)
def test_bad_data_gives_one_sentence(method, arguments, error):
    net = make()
    with pytest.raises(error, match=r"^Network\.\w+: expected .*, got .*\. .*\.$"):
        getattr(net, method)(*arguments)


def test_a_class_that_does_not_exist_gives_one_sentence():
    net = make(output="softmax")
    with pytest.raises(lamina.DataError, match="classes 0 to 2"):
        net.loss(rows(), np.array([0, 1, 2, 3, 0, 0, 0]))


def test_a_float64_value_too_large_for_float32_is_refused_where_data_must_be_finite():
    with pytest.raises(lamina.DataError, match="float32"):
        make(dtype="float32").loss(np.full((1, D_IN), 1e300), np.zeros((1, D_OUT)))


# --- parameters --------------------------------------------------------------------------------


def test_parameters_read_as_sequences():
    net = make()
    assert [w.shape for w in net.weights] == [(6, 4), (5, 6), (3, 5)]
    assert [b.shape for b in net.biases] == [(6,), (5,), (3,)]
    assert len(net.weights) == len(net.biases) == 3
    assert_same_bits(net.weights[-1], net.weights[2])
    assert [b.shape for b in net.biases[1:]] == [(5,), (3,)]
    assert net.n_params == sum(a.size for a in [*net.weights, *net.biases]) == len(net.theta)
    assert_same_bits(np.concatenate([net.weights[0].ravel(), net.biases[0]]), net.theta[:30])
    assert "(6, 4)" in repr(net.weights)


def test_arrays_given_out_are_read_only():
    net = make()
    for array in (net.weights[0], net.biases[0], net.theta):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_assignment_copies_in_and_takes_effect():
    net = make()
    x = rows()
    net(x)
    before = net.weights[1]
    kept = before.copy()
    w = np.arange(30.0).reshape(5, 6) / 30
    net.weights[1] = w
    net.biases[-1] = [1, 2, 3]
    w[:] = 99  # ours no more
    assert net.weights[1][0, 1] == 1 / 30
    assert_same_bits(before, kept)  # what was given out keeps its values
    assert_close(net(x), by_hand(net, x), rounding("float64", 16))


def test_theta_may_be_assigned_whole():
    net, other = make(), make(rng=9)
    net(rows())
    net.theta = other.theta.tolist()
    assert_same_bits(net(rows()), other(rows()))


@pytest.mark.parametrize(
    ("assign", "error"),
    [
        (lambda net: net.weights.__setitem__(0, np.zeros((4, 6))), lamina.ShapeError),
        (lambda net: net.biases.__setitem__(0, np.zeros((6, 1))), lamina.ShapeError),
        (lambda net: net.biases.__setitem__(0, 0.0), lamina.ShapeError),
        (lambda net: net.biases.__setitem__(0, [np.nan] * 6), lamina.DataError),
        (lambda net: net.biases.__setitem__(0, "zeros"), lamina.DataError),
        (lambda net: net.weights.__setitem__(3, np.zeros((3, 5))), IndexError),
        (lambda net: net.weights[-4], IndexError),
        (lambda net: setattr(net, "theta", np.zeros(3)), lamina.ShapeError),
    ],
)
def test_a_bad_assignment_changes_nothing(assign, error):
    net = make()
    before = net.theta
    with pytest.raises(error, match=r"^net\.\w+(\[\d\])?: expected .*, got .*"):
        assign(net)
    assert net.theta is before


# --- copies ------------------------------------------------------------------------------------

COPIES = {
    "pickle": lambda net: pickle.loads(pickle.dumps(net)),
    "pickle_2": lambda net: pickle.loads(pickle.dumps(net, protocol=2)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_copy_behaves_the_same_and_stands_alone(how, dtype):
    net = make(dtype=dtype, skips={3: (0, 1)}, residual=True, dropout=0.2, output="softmax")
    x, y = rows(), np.array([0, 1, 2, 2, 1, 0, 2])
    y_pred = net(x)  # now it has an engine
    twin = COPIES[how](net)
    assert repr(twin) == repr(net)
    assert_same_bits(twin(x), y_pred)
    assert twin.loss(x, y) == net.loss(x, y)
    twin.biases[0] = np.ones(6)
    assert_same_bits(net(x), y_pred)


def test_a_pickle_has_no_native_handle():
    net = make()
    net(rows())
    names = [
        argument
        for opcode, argument, _ in pickletools.genops(pickle.dumps(net))
        if isinstance(argument, str)
    ]
    assert not any("native" in name or "Engine" in name for name in names)


def test_a_file_brings_the_network_back(tmp_path):
    net = make(dtype="float32", skips={2: (0,)})
    net.save(tmp_path / "net.lamina")
    loaded = lamina.load(tmp_path / "net.lamina")
    assert type(loaded) is lamina.Network
    assert repr(loaded) == repr(net)
    assert_same_bits(loaded(rows()), net(rows()))


def test_parts_of_a_file_that_do_not_fit_are_refused():
    spec = make().spec.to_json()
    for arrays in ({}, {"theta": np.zeros(3)}, {"theta": make().theta.astype(np.float32)}):
        with pytest.raises((lamina.SpecError, lamina.ShapeError), match="expected"):
            lamina.Network.from_file_parts(spec, arrays)


def test_several_threads_may_call_one_network():
    net = lamina.Network(D_IN, (64, 64), D_OUT, rng=0)
    x = rows(2000)
    expected = net(x)
    results = []

    def call():
        for _ in range(20):
            results.append(np.array_equal(net(x), expected))  # noqa: PERF401

    workers = [threading.Thread(target=call) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == [True] * 80
