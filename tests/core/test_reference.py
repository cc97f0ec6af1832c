"""The slow twin against PyTorch's autograd and optimisers, scikit-learn's, and differences."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer
from tests.tolerances import (
    assert_close,
    assert_same_bits,
    assert_small,
    difference_step,
    finite_difference,
    rounding,
)

from lamina.core import reference
from lamina.core.functions import ACTIVATIONS
from lamina.core.losses import (
    AbsoluteError,
    BinaryCrossEntropy,
    CrossEntropy,
    Huber,
    Pinball,
    Poisson,
    SquaredError,
)
from lamina.core.reference import Data, Hyper, State
from lamina.core.spec import NetworkSpec

N, D_IN, D_OUT, LEVELS = 6, 4, 4, (0.2, 0.7)
F64 = rounding(np.float64, N * 4 * D_IN)  # rows, layers, columns: the terms behind a gradient

TORCH_ACTIVATION = {
    "identity": lambda z: z,
    "step": lambda z: (z >= 0).to(z) + 0.0 * z,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": F.relu,
    "leaky_relu": lambda z: F.leaky_relu(z, 0.01),
    "softplus": F.softplus,
    "gelu": F.gelu,
    "gelu_tanh": lambda z: F.gelu(z, approximate="tanh"),
    "silu": F.silu,
    "selu": F.selu,
    "mish": F.mish,
    "sine": torch.sin,
    "squared_relu": lambda z: F.relu(z) ** 2,
}
TORCH_OUTPUT = {
    "identity": lambda z: z,
    "sigmoid": torch.sigmoid,
    "softmax": lambda z: F.softmax(z, dim=1),
    "exp": torch.exp,
    "step": TORCH_ACTIVATION["step"],
}
TORCH_ELEMENT = {  # (n, d_out) from y_pred and y; the last three outputs are taken as they are
    "squared_error": lambda p, y: F.mse_loss(p, y, reduction="none"),
    "absolute_error": lambda p, y: F.l1_loss(p, y, reduction="none"),
    "huber": lambda p, y: F.huber_loss(p, y, reduction="none", delta=0.5),
    "binary_cross_entropy": lambda p, y: F.binary_cross_entropy(p, y, reduction="none"),
    "poisson": lambda p, y: F.poisson_nll_loss(p, y, log_input=False, reduction="none", eps=0),
    "cross_entropy": lambda p, y: -y * torch.log(p),
}
PAIRS = [
    *(
        (loss, output)
        for loss in (SquaredError(), AbsoluteError(), Huber(0.5), Pinball(LEVELS))
        for output in TORCH_OUTPUT
    ),
    (BinaryCrossEntropy(), "sigmoid"),
    (CrossEntropy(), "softmax"),
    (CrossEntropy(0.2), "softmax"),
    (Poisson(), "exp"),
]
GRAPHS = {
    "plain": {},
    "skips": {"skips": {2: (0,), 3: (1, 0), 4: (2, 0)}},
    "residual": {"residual": True},
    "both": {"skips": {3: (0, 1)}, "residual": True},
}


def make_spec(activation="tanh", output="identity", graph="both", **more):
    kind = {"activation": activation, "output": output, "dtype": "float64"}
    return NetworkSpec.create(D_IN, (4, 4, 3), D_OUT, **(kind | GRAPHS[graph] | more))


def make_theta(spec, seed=0):
    return np.random.default_rng(seed).normal(0.0, 0.25, spec.n_params)


def make_data(loss, seed=1, n=N, weighted=True):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(n, D_OUT))
    if isinstance(loss, Pinball):
        y = y[:, : D_OUT // len(LEVELS)]
    elif isinstance(loss, BinaryCrossEntropy):
        y = rng.uniform(size=(n, D_OUT))
    elif isinstance(loss, Poisson):
        y = rng.poisson(2.0, (n, D_OUT)).astype(float)
    elif isinstance(loss, CrossEntropy):
        y = rng.integers(0, D_OUT, n)
    x = rng.normal(size=(n, D_IN))
    if not weighted:
        return Data(x, y)
    return Data(x, y, rng.uniform(0.0, 2.0, n), rng.uniform(0.2, 2.0, D_OUT))


def torch_forward(spec, theta, x, masks=None):
    """The network written again from its definition, with torch's own functions."""
    h, start = [x], 0
    dims = [spec.d_in, *spec.widths, spec.d_out]
    for layer in range(1, len(dims)):
        u = torch.cat([h[layer - 1], *(h[j] for j in dict(spec.skips).get(layer, ()))], dim=1)
        stop = start + dims[layer] * u.shape[1]
        weight = theta[start:stop].view(dims[layer], u.shape[1])
        z = F.linear(u, weight, theta[stop : stop + dims[layer]])
        start = stop + dims[layer]
        if layer == len(dims) - 1:
            return TORCH_OUTPUT[spec.output](z)
        a = TORCH_ACTIVATION[spec.activations[layer - 1]](z)
        if masks is not None:
            a = a * torch.tensor(masks[layer - 1]) / (1 - spec.dropout)
        h.append(a + h[-1] if spec.residual and dims[layer] == dims[layer - 1] else a)
    raise AssertionError


def torch_loss(y_pred, data, loss):
    """The weighted mean of the losses, from y_pred."""
    w = torch.ones(len(data.x)) if data.sample_weight is None else torch.tensor(data.sample_weight)
    v = torch.ones(D_OUT) if data.output_weight is None else torch.tensor(data.output_weight)
    y = torch.tensor(data.y)
    if loss.name == "pinball":
        targets = y.repeat_interleave(len(LEVELS), dim=1)
        q = torch.tensor(LEVELS, dtype=torch.float64).repeat(y.shape[1])
        r = targets - y_pred
        element = torch.where(r > 0, q * r, (q - 1) * r)
    elif loss.name == "cross_entropy":
        s = loss.label_smoothing
        t = (1 - s) * F.one_hot(y, D_OUT).to(y_pred) + s / D_OUT
        element = TORCH_ELEMENT[loss.name](y_pred, t) * D_OUT  # a sum over outputs, not a mean
    else:
        element = TORCH_ELEMENT[loss.name](y_pred, y)
    return (w * (v * element).mean(dim=1)).sum() / w.sum()


def torch_gradients(spec, theta, data, loss, masks=None):
    theta = torch.tensor(theta, requires_grad=True)
    x = torch.tensor(data.x, requires_grad=True)
    value = torch_loss(torch_forward(spec, theta, x, masks), data, loss)
    grad, grad_x = torch.autograd.grad(value, (theta, x), allow_unused=True)
    return value.item(), grad.numpy(), grad_x.numpy()


def value_at(spec, theta, data, loss, masks=None):
    trace = reference.forward(spec, theta, data.x, masks)
    return reference.loss_value(spec, trace.z[-1], data, loss)[0]


def differences(spec, theta, data, loss, directions, masks=None):
    """Central differences of the loss along directions (k, n_params)."""
    h = difference_step()
    return np.array(
        [
            value_at(spec, theta + h * d, data, loss, masks)
            - value_at(spec, theta - h * d, data, loss, masks)
            for d in directions
        ]
    ) / (2 * h)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_backward_matches_pytorch_and_finite_differences(activation, graph):
    for loss, output in PAIRS:
        spec = make_spec(activation, output, graph)
        theta, data, what = make_theta(spec), make_data(loss), f"{loss.name} of {output}"
        value, grad, grad_x = reference.evaluate(spec, theta, data, loss)
        expected, their_grad, their_grad_x = torch_gradients(spec, theta, data, loss)
        assert_close(value, expected, F64, what)
        assert_close(grad, their_grad, F64, what)
        assert_close(grad_x, their_grad_x, F64, what)
        directions = np.random.default_rng(2).normal(size=(4, spec.n_params))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        numeric = differences(spec, theta, data, loss, directions)
        scale = max(float(np.linalg.norm(grad)), abs(value))  # the loss's rounding counts too
        assert_small(directions @ grad - numeric, scale, finite_difference(), what)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("loss", "output"), PAIRS, ids=lambda p: getattr(p, "name", p))
def test_every_parameter_matches_finite_differences(loss, output, weighted):
    spec = make_spec("tanh", output, "both")
    theta, data = make_theta(spec), make_data(loss, weighted=weighted)
    _, grad, grad_x = reference.evaluate(spec, theta, data, loss)
    numeric = differences(spec, theta, data, loss, np.eye(spec.n_params))
    assert_close(grad, numeric, finite_difference(32))
    h = difference_step()
    for i, j in [(0, 0), (3, 2), (5, 3)]:
        shift = np.zeros_like(data.x)
        shift[i, j] = h
        up, down = (
            value_at(spec, theta, Data(x, data.y, data.sample_weight, data.output_weight), loss)
            for x in (data.x + shift, data.x - shift)
        )
        scale = float(np.abs(grad_x).max())
        assert_small(grad_x[i, j] - (up - down) / (2 * h), scale, finite_difference(32))


def test_forward_matches_pytorch_layer_by_layer():
    spec = make_spec("gelu", "softmax", "skips")
    theta, x = make_theta(spec), make_data(SquaredError()).x
    trace = reference.forward(spec, theta, x)
    assert [z.shape for z in trace.z] == [(N, 4), (N, 4), (N, 3), (N, 4)]
    assert [h.shape for h in trace.h] == [z.shape for z in trace.z]
    theirs = torch_forward(spec, torch.tensor(theta), torch.tensor(x)).numpy()
    assert_close(trace.h[-1], theirs, F64)
    (weight, bias), *_ = reference.unpack(spec, theta)
    layer = torch.nn.Linear(4, 4, dtype=torch.float64)
    layer.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    z_1 = layer(torch.tensor(x))
    assert_close(trace.z[0], z_1.detach().numpy(), F64)
    assert_close(trace.h[0], F.gelu(z_1).detach().numpy(), F64)


def test_theta_is_weights_row_major_then_bias_layer_by_layer():
    spec = NetworkSpec.create(2, (3,), 1, activation="identity")
    theta = np.arange(1.0, 14.0)
    (w_1, b_1), (w_2, b_2) = reference.unpack(spec, theta)
    assert w_1.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert (b_1.tolist(), w_2.tolist(), b_2.tolist()) == ([7, 8, 9], [[10, 11, 12]], [13])
    trace = reference.forward(spec, theta, np.array([[1.0, 10.0]]))
    assert trace.z[0].tolist() == [[28, 51, 74]]
    assert trace.h[-1].tolist() == [[280 + 561 + 888 + 13]]


@pytest.mark.parametrize("graph", GRAPHS)
def test_dropout_masks_match_pytorch_and_finite_differences(graph):
    loss = CrossEntropy()
    spec = make_spec("silu", "softmax", graph, dropout=0.25)
    theta, data = make_theta(spec), make_data(loss)
    rng = np.random.default_rng(3)
    masks = [(rng.random((N, d)) >= 0.25).astype(float) for d in spec.widths]
    value, grad, grad_x = reference.evaluate(spec, theta, data, loss, masks)
    expected, their_grad, their_grad_x = torch_gradients(spec, theta, data, loss, masks)
    assert_close(value, expected, F64)
    assert_close(grad, their_grad, F64)
    assert_close(grad_x, their_grad_x, F64)
    numeric = differences(spec, theta, data, loss, np.eye(spec.n_params), masks)
    assert_close(grad, numeric, finite_difference(32))
    assert value != pytest.approx(reference.evaluate(spec, theta, data, loss)[0])


def test_a_linear_model_has_the_gradient_of_least_squares():
    spec = NetworkSpec.create(3, (), 2, dtype="float64")
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(20, 3)), rng.normal(size=(20, 2))
    design = np.hstack([x, np.ones((20, 1))])
    solution = np.linalg.lstsq(design, y)[0]  # (4, 2)
    theta = np.concatenate([solution[:3].T.ravel(), solution[3]])
    value, grad, _ = reference.evaluate(spec, theta, Data(x, y), SquaredError())
    assert_close(value, ((design @ solution - y) ** 2).mean(), F64)
    assert_small(grad, 1.0, F64)


def test_a_row_of_weight_zero_does_not_count_and_of_weight_two_counts_twice():
    loss = SquaredError()
    spec = make_spec()
    theta, data = make_theta(spec), make_data(loss, weighted=False)
    weight = np.array([0.0, 2.0, 1.0, 1.0, 1.0, 1.0])
    weighted = reference.evaluate(spec, theta, Data(data.x, data.y, weight), loss)
    repeated = reference.evaluate(spec, theta, data.rows(np.array([1, 1, 2, 3, 4, 5])), loss)
    assert_close(weighted[0], repeated[0], F64)
    assert_close(weighted[1], repeated[1], F64)
    none = reference.evaluate(spec, theta, Data(data.x, data.y, np.zeros(N)), loss)
    assert none[0] == 0.0
    assert not none[1].any()


# --- optimisers -------------------------------------------------------------------------------

HYPER = {
    "adam": (reference.adam_step, Hyper()),
    "adam, other betas": (reference.adam_step, Hyper(beta_1=0.8, beta_2=0.99, epsilon=1e-3)),
    "adamw": (reference.adam_step, Hyper(weight_decay=0.1)),
    "sgd": (reference.sgd_step, Hyper()),
    "momentum": (reference.sgd_step, Hyper(momentum=0.9)),
    "nesterov": (reference.sgd_step, Hyper(momentum=0.9, nesterov=True, weight_decay=0.1)),
}


def torch_optimizer(spec, theta, step, hyper, lr):
    """The parameters as torch leaves, weights and biases apart, and torch's optimiser of them."""
    parts = [torch.tensor(theta[s], requires_grad=True) for pair in spec.slices() for s in pair]
    if step is reference.adam_step:
        groups = [
            {"params": parts[0::2], "weight_decay": hyper.weight_decay},
            {"params": parts[1::2], "weight_decay": 0.0},
        ]
        betas = (hyper.beta_1, hyper.beta_2)
        return parts, torch.optim.AdamW(groups, lr=lr, betas=betas, eps=hyper.epsilon)
    return parts, torch.optim.SGD(parts, lr=lr, momentum=hyper.momentum, nesterov=hyper.nesterov)


@pytest.mark.parametrize("name", HYPER)
def test_training_matches_pytorch(name):
    step, hyper = HYPER[name]
    loss, lr, n, batch_size = CrossEntropy(), 0.05, 17, 5
    spec = make_spec("tanh", "softmax")
    theta, data = make_theta(spec), make_data(loss, n=n)
    parts, optimizer = torch_optimizer(spec, theta, step, hyper, lr)
    state, rng = State.start(theta), np.random.default_rng(5)
    for _ in range(3):
        batches = reference.split(rng.permutation(n), batch_size)
        assert [len(b) for b in batches] == [5, 5, 5, 2]
        state, ours = reference.train_epoch(
            spec, state, data, loss, step, hyper, batches, [lr] * len(batches)
        )
        theirs = 0.0
        for index in batches:
            rows = data.rows(index)
            y_pred = torch_forward(spec, torch.cat(parts), torch.tensor(rows.x))
            value = torch_loss(y_pred, rows, loss)
            optimizer.zero_grad()
            value.backward()
            if step is reference.sgd_step:  # torch's decay of SGD is not decoupled
                with torch.no_grad():
                    for weight in parts[0::2]:
                        weight *= 1.0 - lr * hyper.weight_decay
            optimizer.step()
            theirs += value.item() * len(index) / n
        assert_close(ours, theirs, rounding(np.float64, 256))
    assert state.step == 12
    assert_close(state.theta, torch.cat(parts).detach().numpy(), rounding(np.float64, 256))


@pytest.mark.parametrize("kind", ["adam", "sgd", "nesterov"])
def test_steps_match_scikit_learn_under_a_changing_learning_rate(kind):
    rng = np.random.default_rng(6)
    theta = rng.normal(size=9)
    params = [theta.copy()]
    if kind == "adam":
        theirs = AdamOptimizer(params, epsilon=1e-4)
        step, hyper = reference.adam_step, Hyper(epsilon=1e-4, epsilon_hat=True)
    else:
        theirs = SGDOptimizer(params, momentum=0.9, nesterov=kind == "nesterov")
        step, hyper = reference.sgd_step, Hyper(momentum=0.9, nesterov=kind == "nesterov")
    state = State.start(theta)
    for lr in (0.1, 0.2, 0.03, 0.05):
        g = rng.normal(size=9)
        if kind == "adam":
            theirs.learning_rate_init = lr
        else:
            theirs.learning_rate = lr
        theirs.update_params(params, [g])
        state = step(state, g, lr, np.zeros(9), hyper)
        assert_close(state.theta, params[0], F64)


@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_l2_penalises_weights_and_never_biases(per_row, weighted):
    loss, spec = SquaredError(), make_spec()
    theta, data = make_theta(spec), make_data(loss, weighted=weighted)
    hyper = Hyper(l2=0.3, l2_per_row=per_row)
    value, grad = reference.penalised(spec, theta, data, loss, hyper, None)
    weights = [w for w, _ in reference.unpack(spec, theta)]
    rows = (data.sample_weight.sum() if weighted else N) if per_row else 1.0
    penalty = 0.15 / rows * sum((w**2).sum() for w in weights)
    assert_close(value, value_at(spec, theta, data, loss) + penalty, F64)
    h = difference_step()
    numeric = [
        (
            reference.penalised(spec, theta + h * e, data, loss, hyper, None)[0]
            - reference.penalised(spec, theta - h * e, data, loss, hyper, None)[0]
        )
        / (2 * h)
        for e in np.eye(spec.n_params)
    ]
    assert_close(grad, numeric, finite_difference(32))


def test_nothing_is_modified_in_place():
    loss, spec = SquaredError(), make_spec()
    theta, data = make_theta(spec), make_data(loss)
    kept = theta.copy(), data.x.copy(), data.y.copy()
    for step in (reference.adam_step, reference.sgd_step):
        batches = reference.split(np.arange(N), 4)
        reference.train_epoch(
            spec, State.start(theta), data, loss, step, Hyper(l2=0.1), batches, [0.1, 0.1]
        )
    for before, after in zip(kept, (theta, data.x, data.y), strict=True):
        assert_same_bits(after, before)
