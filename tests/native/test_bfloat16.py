"""Training in bfloat16 against a twin that rounds where the engine says it does.

The twin computes in float64 and rounds inputs, weights, activations, slopes and deltas to 8 bits;
sums, biases, losses and the step are not rounded. `make amx` runs this file with AMX tiles emulated
on machines that have AVX-512-BF16 only.
"""

import numpy as np
import pytest
from tests.tolerances import assert_close, assert_same_bits

import lamina
from lamina import _native
from lamina.core.engine import Run, bfloat16_unit, make_engine
from lamina.core.functions import ACTIVATIONS
from lamina.core.losses import CrossEntropy, SquaredError
from lamina.core.reference import Data, loss_value, unpack
from lamina.core.spec import NetworkSpec

UNITS = _native.half_isas()
pytestmark = pytest.mark.skipif(
    not UNITS, reason="this machine has neither AMX-BF16 nor AVX-512-BF16"
)
# Where a float32 sum falls on the other side of a rounding boundary than the twin's, one factor in
# a sum is off by 2^-8: rare, so that the whole gradient agrees far better than a single factor.
AGREES = 2e-3


@pytest.fixture(params=UNITS or ["none"])
def unit(request):
    before = bfloat16_unit()
    _native.set_half_isa(request.param)
    yield request.param
    _native.set_half_isa(before)


def bf16(a):
    """Round to the nearest bfloat16, ties to even; as float64."""
    bits = np.ascontiguousarray(a, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32).astype(np.float64)


def twin(spec, theta, x, y, loss):
    """The loss and d loss / d theta of one batch."""
    layers = unpack(spec, theta)
    h, slopes = [bf16(x)], [None]
    for layer, (weight, bias) in enumerate(layers, start=1):
        u = np.concatenate([h[j] for j in spec.sources(layer)], axis=1)
        z = u @ bf16(weight).T + bias
        if layer == spec.n_layers:
            break
        phi = ACTIVATIONS[spec.activation_at(layer)]
        value = phi.value(z)
        if spec.residual_at(layer):
            value = value + h[layer - 1]
        h.append(bf16(value))
        slopes.append(bf16(phi.derivative(z)))
    value, delta_out = loss_value(spec, z, Data(x, y), loss)
    grad_h = [np.zeros_like(a) for a in h]
    grads = []
    for layer in range(spec.n_layers, 0, -1):
        weight, _ = layers[layer - 1]
        if layer == spec.n_layers:
            delta, bias_sum = bf16(delta_out), delta_out.sum(axis=0)
        else:
            if spec.residual_at(layer):
                grad_h[layer - 1] += grad_h[layer]
            delta = bf16(grad_h[layer] * slopes[layer])
            bias_sum = delta.sum(axis=0)
        u = np.concatenate([h[j] for j in spec.sources(layer)], axis=1)
        grads.append(np.concatenate([(delta.T @ u).ravel(), bias_sum]))
        grad_u, start = delta @ bf16(weight), 0
        for j in spec.sources(layer):
            grad_h[j] += grad_u[:, start : start + h[j].shape[1]]
            start += h[j].shape[1]
    return value, np.concatenate(grads[::-1])


def one_step(spec, theta, x, y, loss, n_threads=1, half=True, **hyper):
    """Theta before less theta after one step of gradient descent at rate 1, and the loss."""
    engine = make_engine(spec, theta)
    run = Run(
        engine,
        loss,
        "sgd",
        {"bfloat16": half, **hyper},
        batch_size=len(x),
        seed=0,
        n_threads=n_threads,
    )
    losses, _ = run.epochs(x, y, np.ones(1), first_epoch=0, n_epochs=1, shuffle=False)
    return theta - engine.get_parameters(), losses[0]


def problem(d_in, widths, d_out, n, output="identity", activation="tanh", **more):
    spec = NetworkSpec.create(
        d_in, widths, d_out, activation=activation, output=output, dtype="float32", **more
    )
    rng = np.random.default_rng(0)
    theta = np.concatenate(
        [
            np.concatenate([rng.normal(0, shape[1] ** -0.5, shape[0] * shape[1]), bias])
            for shape, bias_shape in spec.parameter_shapes()
            for bias in [rng.normal(0, 0.3, bias_shape)]
        ]
    ).astype(np.float32)
    x = rng.standard_normal((n, d_in)).astype(np.float32)
    if output == "softmax":
        return spec, theta, x, rng.integers(0, d_out, n).astype(np.int32), CrossEntropy()
    return spec, theta, x, rng.standard_normal((n, d_out)).astype(np.float32), SquaredError()


SHAPES = {
    "one panel": (3, (17,), 1, 7, {}),
    "exact panels": (32, (32, 64), 32, 64, {}),
    "awkward": (33, (31, 65, 1), 17, 45, {}),
    "narrow inside": (40, (16, 48), 2, 33, {}),
    "classes": (20, (100,), 7, 200, {"output": "softmax"}),
    "blocks": (54, (96, 96, 96), 3, 700, {}),
    "split": (70, (128, 128), 10, 40, {"output": "softmax"}),
    "linear": (9, (), 4, 50, {}),
    "skips": (5, (40, 33, 40), 3, 100, {"skips": {2: (0,), 4: (0, 1)}}),
    "residual": (5, (40, 40, 40), 3, 100, {"residual": True}),
    "residual and skips": (
        6,
        (20, 20, 20),
        3,
        70,
        {"residual": True, "skips": {3: (0, 1), 4: (1,)}},
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_a_step_is_the_twin_s(unit, shape, n_threads):
    d_in, widths, d_out, n, more = SHAPES[shape]
    spec, theta, x, y, loss = problem(d_in, widths, d_out, n, **more)
    gradient, value = one_step(spec, theta, x, y, loss, n_threads)
    expected, expected_gradient = twin(spec, theta, x, y, loss)
    assert abs(value - expected) < AGREES * abs(expected)
    for (weight, bias), (_, _) in zip(spec.slices(), spec.parameter_shapes(), strict=True):
        assert_close(gradient[weight], expected_gradient[weight], 2 * AGREES, "weight gradient")
        assert_close(gradient[bias], expected_gradient[bias], 2 * AGREES, "bias gradient")


@pytest.mark.parametrize("activation", [a for a in ACTIVATIONS if a != "step"])
@pytest.mark.parametrize("residual", [False, True])
def test_every_activation(unit, activation, residual):
    spec, theta, x, y, loss = problem(6, (40, 40), 3, 90, activation=activation, residual=residual)
    gradient, _ = one_step(spec, theta, x, y, loss)
    assert_close(gradient, twin(spec, theta, x, y, loss)[1], 2 * AGREES)


def test_dropout_draws_the_masks_of_float32(unit):
    spec, theta, x, y, loss = problem(6, (64, 64), 3, 90, dropout=0.5)
    half, _ = one_step(spec, theta, x, y, loss)
    full, _ = one_step(spec, theta, x, y, loss, half=False)
    assert np.linalg.norm(half - full) < 0.02 * np.linalg.norm(full)
    dry, _ = one_step(
        NetworkSpec.create(6, (64, 64), 3, activation="tanh", dtype="float32"), theta, x, y, loss
    )
    assert np.linalg.norm(dry - full) > 0.3 * np.linalg.norm(full)


def test_rows_weights_and_quantiles_pass_through(unit):
    spec, theta, x, _, _ = problem(6, (40,), 4, 50)
    loss = lamina.Pinball((0.1, 0.9))
    y = np.random.default_rng(1).standard_normal((50, 2)).astype(np.float32)
    weight = np.arange(50, dtype=np.float32)

    def step(half):
        engine = make_engine(spec, theta)
        run = Run(engine, loss, "sgd", {"bfloat16": half}, batch_size=50, seed=0, n_threads=2)
        run.epochs(x, y, np.ones(1), first_epoch=0, n_epochs=1, sample_weight=weight)
        return theta - engine.get_parameters()

    full = step(False)
    assert np.linalg.norm(step(True) - full) < 0.02 * np.linalg.norm(full)


@pytest.mark.parametrize("shape", ["classes", "blocks", "split", "residual"])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_the_same_seed_gives_the_same_bits(unit, shape, n_threads):
    d_in, widths, d_out, n, more = SHAPES[shape]
    spec, theta, x, y, loss = problem(d_in, widths, d_out, n, **more)

    def train():
        engine = make_engine(spec, theta)
        hyper = {"bfloat16": True}
        run = Run(engine, loss, "adam", hyper, batch_size=33, seed=3, n_threads=n_threads)
        run.epochs(x, y, np.full(2 * -(-n // 33), 1e-3), first_epoch=0, n_epochs=2)
        return engine.get_parameters()

    first = train()
    assert_same_bits(first, train())
    assert not np.array_equal(first, theta)


def test_the_float32_copies_are_fresh_after_a_run(unit):
    """Forward and gradients after training use the parameters that training left."""
    spec, theta, x, y, loss = problem(6, (40, 40), 3, 90)
    engine = make_engine(spec, theta)
    run = Run(engine, loss, "adam", {"bfloat16": True}, batch_size=32, seed=0)
    run.epochs(x, y, np.full(3, 0.1), first_epoch=0, n_epochs=1)
    fresh = make_engine(spec, engine.get_parameters())
    assert_same_bits(engine.forward(x), fresh.forward(x))
    grads = [np.zeros(spec.n_params, np.float32) for _ in range(2)]
    for e, g in zip((engine, fresh), grads, strict=True):
        e.evaluate(x, y, loss, grad=g, grad_x=np.zeros_like(x))
    assert_same_bits(*grads)


def test_parameters_set_between_epochs_are_taken_up(unit):
    spec, theta, x, y, loss = problem(6, (40,), 3, 64)
    engine = make_engine(spec, np.zeros_like(theta))
    run = Run(engine, loss, "sgd", {"bfloat16": True}, batch_size=64, seed=0)
    engine.set_parameters(theta)
    run.epochs(x, y, np.ones(1), first_epoch=0, n_epochs=1, shuffle=False)
    expected, _ = one_step(spec, theta, x, y, loss)
    assert_same_bits(theta - engine.get_parameters(), expected)


ENCODINGS = [
    lamina.HashGrid(n_levels=8, log2_table_size=10),
    lamina.Fourier(6),
    lamina.RandomFourier(32, 2.0),
    lamina.OneBlob(16),
    lamina.ColumnEmbeddings((6, -4), 8),
]


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("more", [{}, {"residual": True}, {"skips": {3: (0,)}}], ids=str)
@pytest.mark.parametrize("n_threads", [1, 2])
def test_encoded_coordinates_and_their_table(unit, encoding, more, n_threads):
    """Weights and table move as in float32, but for the rounding of factors."""
    net = lamina.Network(2, (32, 32, 32), 3, activation="gelu", encoding=encoding, rng=0, **more)
    rng = np.random.default_rng(0)
    theta = net.theta.copy()
    table = theta[theta.size - (0 if net.table is None else net.table.size) :]
    table[:] = rng.standard_normal(table.size)  # else h_0 is too small to matter
    x = rng.uniform(-1, 1, (300, 2)).astype(np.float32)
    y = rng.standard_normal((300, 3)).astype(np.float32)
    half, _ = one_step(net.spec, theta, x, y, SquaredError(), n_threads)
    full, _ = one_step(net.spec, theta, x, y, SquaredError(), n_threads, half=False)
    for part in (slice(0, theta.size - table.size), slice(theta.size - table.size, None)):
        assert np.linalg.norm(half[part] - full[part]) <= 0.02 * np.linalg.norm(full[part])
    assert np.linalg.norm(half[theta.size - table.size :]) > 0 or not table.size
    assert not np.array_equal(half, full)
