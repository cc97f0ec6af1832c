"""PyTorch in and out. Oracle: PyTorch's own forward pass and autograd."""

import copy
import pickle
import sys

import numpy as np
import pytest
import torch
from tests.tolerances import assert_close, assert_same_bits, rounding
from torch import nn

import lamina
from lamina.core.functions import ACTIVATIONS, OUTPUTS

DTYPES = ["float32", "float64"]
GRAPHS = [
    ((), {}),
    ((6,), {"activation": "tanh"}),
    ((6, 4), {"activation": ("relu", "identity"), "output": "sigmoid", "dropout": 0.5}),
    ((6, 4), {"skips": {2: (0,), 3: (1, 0)}, "activation": "gelu"}),
    ((5, 5, 4, 4), {"residual": True, "activation": "silu"}),
    ((5, 6, 6), {"residual": True, "skips": {4: (2, 0)}, "output": "softmax", "dropout": 0.25}),
]


def rows(n, d, dtype, rng=0):
    return np.random.default_rng(rng).normal(size=(n, d)).astype(dtype)


def outputs(module, x):
    with torch.no_grad():
        return module(torch.as_tensor(x)).numpy()


def tolerance(net):
    """Rounding of the sums and of the functions of every layer."""
    fan_in = sum(net.spec.fan_in(layer) for layer in range(1, net.spec.n_layers + 1))
    return rounding(net.dtype, fan_in)


def assert_equal_outputs_and_gradients(net, module, x):
    """Compare y_pred, and the gradients of the mean squared error to a random target."""
    y = rows(len(x), net.spec.d_out, net.dtype, rng=99)
    assert_close(outputs(module, x), net(x), tolerance(net), "outputs")
    x_torch = torch.tensor(x, requires_grad=True)
    loss = nn.functional.mse_loss(module(x_torch), torch.tensor(y))
    loss.backward()
    got = net.gradients(x, y, loss="squared_error")
    linears = [m for m in module.modules() if isinstance(m, nn.Linear)]
    assert len(linears) == net.spec.n_layers
    pairs = [("loss", loss.detach().numpy(), got.loss), ("x", x_torch.grad.numpy(), got.x)]
    for i, linear in enumerate(linears):
        pairs.append((f"weight {i}", linear.weight.grad.numpy(), got.weights[i]))
        pairs.append((f"bias {i}", linear.bias.grad.numpy(), got.biases[i]))
    for name, expected, actual in pairs:
        # One more sum over the rows, and errors of both passes
        assert_close(actual, expected, 2 * len(x) * tolerance(net), name)


# -------------------------------------------------------------------------------------- to_torch


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_to_torch_has_equal_outputs_and_gradients(activation, output, dtype):
    net = lamina.Network(5, (7,), 3, activation=activation, output=output, dtype=dtype, rng=1)
    for layer in range(2):
        net.biases[layer] = rows(1, len(net.biases[layer]), dtype, layer + 5)[0]
    module = lamina.to_torch(net)
    assert type(module) is nn.Sequential
    assert_equal_outputs_and_gradients(net, module, rows(4, 5, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("widths", "options"), GRAPHS)
def test_every_graph_goes_to_torch_and_back(widths, options, dtype):
    net = lamina.Network(5, widths, 3, dtype=dtype, rng=2, **options)
    module = lamina.to_torch(net)
    assert_equal_outputs_and_gradients(net, module, rows(4, 5, dtype))
    back = lamina.from_torch(module)
    assert back.spec == net.spec
    assert_same_bits(back.theta, net.theta)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_hold_over_their_whole_range(activation):
    net = lamina.Network(1, (1,), 1, activation=activation, dtype="float64", rng=0)
    net.theta = [1.0, 0.0, 1.0, 0.0]  # z passes on unchanged
    for scale in (1e-3, 1, 19, 21, 36, 500):
        z = np.linspace(-scale, scale, 101)[:, None]
        expected = outputs(lamina.to_torch(net), z)
        assert_close(net(z), expected, rounding("float64", 4), f"|z| <= {scale}")


def test_a_plain_chain_is_made_of_torchs_own_layers():
    net = lamina.Network(2, (3, 4), 1, activation=("relu", "identity"), dropout=0.5, rng=0)
    kinds = [type(layer) for layer in lamina.to_torch(net)]
    assert kinds == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear, nn.Dropout, nn.Linear]


@pytest.mark.parametrize("residual", [False, True])
def test_dropout_is_off_until_train_and_then_drops_at_its_rate(residual):
    net = lamina.Network(
        64, (64,), 64, activation="identity", dropout=0.25, residual=residual, rng=0
    )
    net.theta = np.concatenate([np.eye(64).ravel(), np.zeros(64)] * 2)
    module = lamina.to_torch(net)
    x = torch.ones(500, 64)
    assert_close(outputs(module, x), net(x.numpy()), rounding("float32", 128))
    torch.manual_seed(0)
    seen = outputs(module.train(), x) - residual
    kept = seen != 0
    assert abs(kept.mean() - 0.75) < 5 * np.sqrt(0.25 * 0.75 / kept.size)
    assert_close(seen[kept], np.full(kept.sum(), 1 / 0.75), rounding("float32", 4))


def test_parameters_are_copies():
    net = lamina.Network(2, (3,), 1, rng=0)
    before = net.theta.copy()
    module = lamina.to_torch(net)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert_same_bits(net.theta, before)
    back = lamina.from_torch(module)
    with torch.no_grad():
        module[0].weight.fill_(3.0)
    assert not back.theta.any()


def test_torchs_generator_is_left_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    lamina.to_torch(lamina.Network(2, (3, 3), 1, residual=True, rng=0))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("widths", "options"), [*GRAPHS, ((3,), {"activation": "sine"})])
def test_modules_pickle_copy_and_keep_their_state(widths, options):
    net = lamina.Network(5, widths, 3, rng=2, **options)
    module = lamina.to_torch(net)
    x = rows(4, 5, "float32")
    for twin in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        assert_same_bits(outputs(twin, x), outputs(module, x))
    fresh = lamina.to_torch(lamina.Network(5, widths, 3, rng=3, **options))
    fresh.load_state_dict(module.state_dict())
    assert_same_bits(outputs(fresh, x), outputs(module, x))


def test_a_module_trains_in_torch_and_comes_back():
    x, y = rows(64, 5, "float32"), rows(64, 1, "float32", 1)
    net = lamina.Network(5, (6, 6), 1, residual=True, skips={3: (0,)}, rng=0)
    module = lamina.to_torch(net).train()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.05)
    for _ in range(5):
        optimiser.zero_grad()
        nn.functional.mse_loss(module(torch.tensor(x)), torch.tensor(y)).backward()
        optimiser.step()
    back = lamina.from_torch(module)
    assert back.loss(x, y) < net.loss(x, y)
    assert_close(back(x), outputs(module, x), tolerance(back))


# ------------------------------------------------------------------------------------ from_torch

HIDDEN = [
    (nn.ReLU(), "relu"),
    (nn.ReLU(inplace=True), "relu"),
    (nn.LeakyReLU(), "leaky_relu"),
    (nn.Tanh(), "tanh"),
    (nn.Sigmoid(), "sigmoid"),
    (nn.GELU(), "gelu"),
    (nn.GELU(approximate="tanh"), "gelu_tanh"),
    (nn.SiLU(), "silu"),
    (nn.Mish(), "mish"),
    (nn.SELU(), "selu"),
    (nn.Softplus(), "softplus"),
    (nn.Identity(), "identity"),
]
LAST = [
    (nn.Identity(), "identity"),
    (nn.Sigmoid(), "sigmoid"),
    (nn.Softmax(dim=1), "softmax"),
    (nn.Softmax(dim=-1), "softmax"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("last", "output"), LAST)
@pytest.mark.parametrize(("hidden", "activation"), HIDDEN)
def test_from_torch_has_equal_outputs(hidden, activation, last, output, dtype):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), hidden, nn.Linear(6, 3), last).to(dtype)
    net = lamina.from_torch(module)
    assert net.spec.activations == (activation,)
    assert net.spec.output == output
    x = rows(9, 4, net.dtype)
    assert_close(net(x), outputs(module, x), tolerance(net))


def test_linear_layers_may_lack_a_bias():
    module = nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 3))
    net = lamina.from_torch(module)
    assert not net.biases[0].any()
    x = rows(9, 4, "float32")
    assert_close(net(x), outputs(module, x), tolerance(net))


def test_flatten_identity_dropout_and_nesting_are_understood():
    head = nn.Sequential(nn.Dropout(0.3), nn.Linear(6, 3), nn.Identity())
    module = nn.Sequential(
        nn.Identity(),
        nn.Flatten(),
        nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Dropout(0.3), nn.Linear(5, 6)),
        head,
        nn.Dropout(0.0),
    ).eval()
    net = lamina.from_torch(module)
    assert net.spec.widths == (5, 6)
    assert net.spec.activations == ("tanh", "identity")
    assert net.spec.dropout == 0.3
    x = rows(9, 4, "float32")
    assert_close(net(x), outputs(module, x.reshape(9, 2, 2)), tolerance(net))


def test_a_layer_that_comes_twice_is_read_twice():
    shared, drop = nn.Linear(4, 4), nn.Dropout(0.5)
    module = nn.Sequential(shared, nn.Tanh(), drop, shared, nn.Tanh(), drop, nn.Linear(4, 2)).eval()
    net = lamina.from_torch(module)
    assert net.spec.n_layers == 3
    x = rows(9, 4, "float32")
    assert_close(net(x), outputs(module, x), tolerance(net))


class OtherLinear(nn.Linear):
    def forward(self, x):
        return -super().forward(x)


def hooked(layer):
    layer.register_forward_hook(lambda *_: None)
    return layer


REFUSED = {
    "a slope of 0.2": ([nn.Linear(4, 4), nn.LeakyReLU(0.2), nn.Linear(4, 2)], "LeakyReLU.* 1"),
    "a beta of 2": ([nn.Linear(4, 4), nn.Softplus(beta=2), nn.Linear(4, 2)], "Softplus.* 1"),
    "a low threshold": ([nn.Linear(4, 4), nn.Softplus(threshold=3), nn.Linear(4, 2)], "Soft.* 1"),
    "softmax over rows": ([nn.Linear(4, 4), nn.Softmax(dim=0)], "Softmax.* 1"),
    "softmax inside": ([nn.Linear(4, 4), nn.Softmax(dim=1), nn.Linear(4, 2)], "Softmax.* 1, .*las"),
    "relu last": ([nn.Linear(4, 4), nn.ReLU()], "ReLU.* 1, .*no output unit"),
    "log-softmax": ([nn.Linear(4, 4), nn.LogSoftmax(dim=1)], "LogSoftmax.* 1, .*not supported"),
    "batch norm": ([nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)], "Batch.* 1"),
    "a convolution": ([nn.Conv1d(1, 1, 1)], "Conv1d.* 0"),
    "a subclass": ([nn.ReLU(), OtherLinear(4, 4)], "ReLU.* 0, .*before any Linear"),
    "a subclass of Linear": ([OtherLinear(4, 4)], "OtherLinear.* 0"),
    "two activations": ([nn.Linear(4, 4), nn.ReLU(), nn.Tanh(), nn.Linear(4, 1)], "Tanh.* 2"),
    "dropout of inputs": ([nn.Dropout(0.1), nn.Linear(4, 4)], "Dropout.* 0"),
    "dropout of outputs": ([nn.Linear(4, 4), nn.Dropout(0.1)], "after the last"),
    "dropout twice": ([nn.Linear(4, 4), *[nn.Dropout(0.1)] * 2, nn.Linear(4, 1)], "Dropout.* 2"),
    "dropout first": (
        [nn.Linear(4, 4), nn.Dropout(0.1), nn.ReLU(), nn.Linear(4, 1)],
        "ReLU.* 2, .*follows a Dropout",
    ),
    "dropout that differs": (
        [nn.Linear(4, 4), nn.Dropout(0.1), nn.Linear(4, 4), nn.Dropout(0.2), nn.Linear(4, 1)],
        "p=0.1, 0.2",
    ),
    "dropout of all": ([nn.Linear(4, 4), nn.Dropout(1.0), nn.Linear(4, 1)], "dropout"),
    "late flatten": ([nn.Linear(4, 4), nn.Flatten()], "Flatten.* 1, .*first"),
    "half a flatten": ([nn.Flatten(0), nn.Linear(4, 4)], "Flatten.* 0"),
    "sizes that differ": ([nn.Linear(4, 5), nn.Linear(4, 2)], "Linear.* 1, .*follows 5"),
    "nested": ([nn.Sequential(nn.Linear(4, 4), nn.PReLU()), nn.Linear(4, 2)], r"PReLU.* 0\.1"),
    "half precision": ([nn.Linear(4, 4).half()], r"Linear.* 0, .*float16; call \.float\(\)"),
    "bfloat16": ([nn.Linear(4, 4).bfloat16()], r"Linear.* 0, .*bfloat16; call \.float\(\)"),
    "mixed precision": ([nn.Linear(4, 4).double(), nn.Linear(4, 4)], "float32 and float64"),
    "the meta device": ([nn.Linear(4, 4, device="meta")], "Linear.* 0, .*meta"),
    "a hook": ([hooked(nn.Linear(4, 4))], "Linear at position 0 with one"),
    "a hook of an activation": ([nn.Linear(4, 4), hooked(nn.Sigmoid())], "Sigmoid at position 1"),
    "a hook of a nested Sequential": ([hooked(nn.Sequential(nn.Linear(4, 4)))], "Sequential at"),
    "weight_norm": (
        [nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))],
        "ParametrizedLinear",
    ),
    "no linear layer": ([nn.Flatten()], "at least one Linear"),
    "nothing": ([], "at least one Linear"),
}


@pytest.mark.parametrize(("layers", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_counterpart_is_named_with_its_position(layers, sentence):
    with pytest.raises(lamina.SpecError, match=sentence) as caught:
        lamina.from_torch(nn.Sequential(*layers))
    assert "expected" in str(caught.value)


@pytest.mark.parametrize("module", [None, nn.Linear(2, 2), lamina.Network(2, (), 1, rng=0)])
def test_only_a_sequential_is_taken(module):
    with pytest.raises(lamina.SpecError, match=r"expected an nn\.Sequential, got"):
        lamina.from_torch(module)


def test_non_finite_parameters_are_refused():
    module = nn.Sequential(nn.Linear(2, 2))
    with torch.no_grad():
        module[0].bias[0] = float("nan")
    with pytest.raises(lamina.DataError, match="finite"):
        lamina.from_torch(module)


@pytest.mark.parametrize("call", [lamina.to_torch, lamina.from_torch])
def test_a_missing_torch_says_how_to_install_it(monkeypatch, call):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(lamina.MissingExtraError, match=r'pip install "lamina\[torch\]"'):
        call(lamina.Network(2, (), 1, rng=0))


def test_the_oracle_sees_a_wrong_weight():
    net = lamina.Network(5, (6,), 3, activation="tanh", rng=0)
    module = lamina.to_torch(net)
    with torch.no_grad():
        module[0].weight[0, 0] += 0.01
    with pytest.raises(AssertionError):
        assert_equal_outputs_and_gradients(net, module, rows(4, 5, "float32"))
