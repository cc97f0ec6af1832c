"""ONNX: what onnxruntime computes from our files equals the network. Oracle: onnxruntime."""

import math
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import sklearn.neural_network
from scipy.special import ndtr
from tests.tolerances import assert_close, rounding

import lamina
from lamina.core.functions import ACTIVATIONS, OUTPUTS

DTYPES = ["float32", "float64"]


def run(model, x):
    session = onnxruntime.InferenceSession(
        model if isinstance(model, str) else model.SerializeToString(),
        providers=["CPUExecutionProvider"],
    )
    return session.run(["y_pred"], {"x": x})[0]


def rows(n, d, dtype, rng=0):
    return np.random.default_rng(rng).normal(size=(n, d)).astype(dtype)


def assert_onnx_equals(net, x):
    model = lamina.to_onnx(net)
    got = run(model, x)
    assert got.dtype == net.dtype
    # 30 eps for the longest chain of operators in an activation, each layer adding its sums; the
    # relative error of exp(z) is the absolute one of z
    fan_in = sum(net.spec.fan_in(layer) for layer in range(1, net.spec.n_layers + 1))
    z_max = max(1, int(np.abs(net.trace(x).z[-1]).max())) if net.spec.output == "exp" else 1
    assert_close(got, net(x), rounding(net.dtype, fan_in * z_max, c=30.0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_onnxruntime_equals_the_network(activation, output, dtype):
    net = lamina.Network(5, (7,), 3, activation=activation, output=output, dtype=dtype, rng=1)
    for layer in range(2):
        net.biases[layer] = rows(1, len(net.biases[layer]), dtype, layer + 5)[0]
    assert_onnx_equals(net, rows(33, 5, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_hold_over_their_whole_range(activation, dtype):
    """The layer passes z on unchanged, so that each activation is seen alone."""
    net = lamina.Network(1, (1,), 1, activation=activation, dtype=dtype, rng=0)
    net.weights[0] = net.weights[1] = np.ones((1, 1))
    net.biases[0] = net.biases[1] = np.zeros(1)
    z = np.concatenate([np.linspace(-s, s, 201) for s in (1e-3, 1, 10, 40, 1000)]).astype(dtype)
    got = run(lamina.to_onnx(net), z[:, None])
    # Each range at its own scale; onnxruntime's Selu in float32 takes exp(z) - 1 as it is
    for low, high in [(0, 1e-3 if dtype == "float64" else 1), (1e-3, 1), (1, 10), (10, 1000)]:
        here = (np.abs(z) >= low) & (np.abs(z) <= high)
        assert_close(got[here], net(z[here, None]), rounding(dtype, c=30.0), f"|z| <= {high}")


def test_float64_gelu_is_accurate_to_rounding_in_its_tail():
    net = lamina.Network(1, (1,), 1, activation="gelu", dtype="float64", rng=0)
    net.weights[0] = net.weights[1] = np.ones((1, 1))
    net.biases[0] = net.biases[1] = np.zeros(1)
    z = np.linspace(-8, 8, 1001)
    got = run(lamina.to_onnx(net), z[:, None])[:, 0]
    expected = z * ndtr(z)
    # exp(-z^2/2) carries the rounding of z^2/2, here at most 32
    np.testing.assert_allclose(got, expected, rtol=rounding("float64", 32), atol=1e-300)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("widths", "options"),
    [
        ((), {}),
        ((), {"output": "softmax"}),
        ((6, 4), {"skips": {2: (0,), 3: (1, 0)}}),
        ((5, 5, 4, 4), {"residual": True}),
        ((5, 6, 6), {"residual": True, "skips": {4: (2, 0), 3: (0,)}, "output": "sigmoid"}),
        ((8,), {"dropout": 0.5}),
        ((4, 4), {"activation": ("sine", "tanh"), "skips": {3: (0,)}}),
    ],
)
def test_every_graph_equals_the_network(widths, options, dtype):
    net = lamina.Network(5, widths, 3, dtype=dtype, rng=2, **options)
    assert_onnx_equals(net, rows(9, 5, dtype))


@pytest.mark.parametrize("n", [0, 1, 2, 65])
def test_the_number_of_rows_is_free(n):
    net = lamina.Network(3, (4,), 2, rng=0)
    assert_close(
        run(lamina.to_onnx(net), rows(n, 3, "float32")),
        net(rows(n, 3, "float32")),
        rounding("float32", 7),
    )


def test_the_model_says_what_it_is():
    model = lamina.to_onnx(lamina.Network(3, (4,), 2, dtype="float64", rng=0))
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 10
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 20)]
    assert model.producer_name == "lamina"
    for value, width in [(model.graph.input[0], 3), (model.graph.output[0], 2)]:
        batch, columns = value.type.tensor_type.shape.dim
        assert batch.dim_param
        assert columns.dim_value == width
        assert value.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE


def test_a_path_gets_the_whole_file_or_nothing(tmp_path):
    net = lamina.Network(3, (4,), 2, rng=0)
    path = tmp_path / "net.onnx"
    model = lamina.to_onnx(net, path)
    assert path.read_bytes() == model.SerializeToString()
    assert_close(
        run(str(path), rows(4, 3, "float32")), net(rows(4, 3, "float32")), rounding("float32", 7)
    )
    with pytest.raises(lamina.ModelFileError, match="to_onnx"):
        lamina.to_onnx(net, tmp_path / "no" / "folder.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
def test_a_fitted_estimator_of_scikit_learn_is_taken(kind):
    x = rows(60, 4, "float64")
    y = np.arange(60) % 3
    fitted = getattr(sklearn.neural_network, kind)(hidden_layer_sizes=(5,), solver="lbfgs", tol=1e9)
    fitted.fit(x, y)
    got = run(lamina.to_onnx(fitted), x)
    expected = fitted.predict_proba(x) if kind == "MLPClassifier" else fitted.predict(x)[:, None]
    assert_close(got, expected, rounding("float64", 9))


@pytest.mark.parametrize("model", [None, 3, sklearn.neural_network.MLPClassifier()])
def test_anything_else_is_refused(model):
    with pytest.raises(lamina.SpecError, match=r"expected a .*fitted"):
        lamina.to_onnx(model)


def test_a_network_beyond_two_gigabytes_is_refused(monkeypatch):
    monkeypatch.setattr("lamina.bridges.onnx.MAX_BYTES", 100)
    with pytest.raises(lamina.SpecError, match="2 GiB"):
        lamina.to_onnx(lamina.Network(9, (9,), 9, rng=0))


def test_a_missing_onnx_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(lamina.MissingExtraError, match=r'pip install "lamina\[onnx\]"'):
        lamina.to_onnx(lamina.Network(2, (), 1, rng=0))


def test_every_constant_is_used():
    for dtype in DTYPES:
        net = lamina.Network(2, (3,) * 14, 2, activation=tuple(ACTIVATIONS), dtype=dtype, rng=0)
        graph = lamina.to_onnx(net).graph
        used = {name for node in graph.node for name in node.input}
        assert {constant.name for constant in graph.initializer} <= used


def test_the_oracle_sees_a_wrong_weight():
    net = lamina.Network(3, (4,), 2, rng=0)
    model = lamina.to_onnx(net)
    net.biases[0] = net.biases[0] + 0.1 * math.pi
    x = np.abs(rows(4, 3, "float32"))
    with pytest.raises(AssertionError):
        assert_close(run(model, x), net(x), rounding("float32", 7))
