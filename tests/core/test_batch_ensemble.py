"""BatchEnsemble: loss, gradients and steps against PyTorch's float64 autograd; files and errors."""

import copy
import pickle

import numpy as np
import pytest
import torch
from tests.tolerances import assert_close, assert_same_bits, rounding

import lamina
from lamina import _native
from lamina.core import modelfile
from lamina.core.batch_ensemble import BatchEnsembleSpec

N = 37
PHI = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "gelu": torch.nn.functional.gelu,
    "identity": lambda z: z,
}
KINDS = ("weights", "input_scales", "output_scales", "biases")


@pytest.fixture(params=_native.isas())
def isa(request):
    before = _native.isa()
    _native.set_isa(request.param)
    yield request.param
    _native.set_isa(before)


def make(d_in=7, widths=(33, 9), d_out=3, k=5, seed=0, **kwargs):
    kwargs = {"output": "softmax", "dtype": "float64", "rng": seed} | kwargs
    model = lamina.BatchEnsemble(d_in, widths, d_out, n_members=k, **kwargs)
    # away from the ones and zeros of the beginning
    shake = np.random.default_rng(seed).normal(size=model.n_params) * 0.3
    model.theta = model.theta + shake
    return model


def data(d_in=7, d_out=3, n=N, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d_in)), rng.integers(0, d_out, n), rng.random(n) + 0.1


def tensors(model):
    return {
        kind: [torch.tensor(a.astype(float), requires_grad=True) for a in part]
        for kind, part in vars(model.parameters).items()
    }


def forward(parts, x, phi):
    h = torch.tensor(x).expand(len(parts["biases"][0]), *x.shape)  # (k, n, d_in)
    layers = list(zip(*(parts[kind] for kind in KINDS), strict=True))
    for i, (w, r, s, b) in enumerate(layers):
        z = (h * r[:, None]) @ w.T * s[:, None] + b[:, None]
        h = z if i == len(layers) - 1 else phi(z)
    return h


def torch_loss(parts, x, y, weight, phi):
    z = forward(parts, x, phi)
    rows = torch.nn.functional.cross_entropy(
        z.flatten(0, 1), torch.tensor(np.tile(y, len(z))), reduction="none"
    ).reshape(len(z), -1)
    w = torch.tensor(weight)
    return ((rows * w).sum(dim=1) / w.sum()).mean()


SHAPES = [
    (7, (33, 9), 3, 5),
    (1, (), 2, 1),
    (40, (16,), 17, 3),
    (33, (64, 65), 2, 32),
    (3, (5,), 4, 600),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients_are_those_of_autograd(shape, dtype, isa):
    d_in, widths, d_out, k = shape
    model = make(d_in, widths, d_out, k, dtype=dtype)
    x, y, weight = (np.asarray(a, dtype) if i != 1 else a for i, a in enumerate(data(d_in, d_out)))
    parts = tensors(model)
    expected = torch_loss(parts, x.astype(float), y, weight.astype(float), torch.relu)
    expected.backward()
    tolerance = rounding(dtype, 4 * max(d_in, N, *widths, k))
    assert_close(model.loss(x, y, sample_weight=weight), float(expected.detach()), tolerance)
    got = model.gradients(x, y, sample_weight=weight)
    for kind in KINDS:
        for mine, theirs in zip(getattr(got, kind), parts[kind], strict=True):
            assert_close(mine, theirs.grad.numpy(), tolerance, kind)


@pytest.mark.parametrize("activation", PHI)
def test_every_kind_of_activation_has_its_gradient(activation):
    model = make(activation=activation)
    x, y, weight = data()
    parts = tensors(model)
    torch_loss(parts, x, y, weight, PHI[activation]).backward()
    got = model.gradients(x, y, sample_weight=weight)
    for kind in KINDS:
        for mine, theirs in zip(getattr(got, kind), parts[kind], strict=True):
            assert_close(mine, theirs.grad.numpy(), rounding(np.float64, 500), kind)


def test_regression_loss_is_the_mean_over_members():
    model = make(d_out=2, output="identity", activation="tanh")
    x, _, _ = data()
    y = np.random.default_rng(5).normal(size=(N, 2))
    of_members = model.predict_members(x)
    assert_close(model.loss(x, y), ((of_members - y) ** 2).mean(), rounding(np.float64, 100))
    assert_close(model(x), of_members.mean(axis=0), rounding(np.float64, 5))
    with torch.no_grad():
        assert_close(
            of_members, forward(tensors(model), x, torch.tanh).numpy(), rounding(np.float64, 50)
        )


@pytest.mark.parametrize("n_threads", [1, 3])
def test_training_takes_the_steps_of_torchs_adamw(n_threads):
    model = make(activation="tanh")
    x, y, _ = data()
    parts = tensors(model)
    weights = parts["weights"]
    others = [a for kind in KINDS[1:] for a in parts[kind]]
    groups = [{"params": weights, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=0.01)
    losses = []
    for _ in range(6):
        adam.zero_grad()
        loss = torch_loss(parts, x, y, np.ones(N), torch.tanh)
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
    history = lamina.train(
        model,
        x,
        y,
        optimizer=lamina.AdamW(0.01, weight_decay=0.1),
        batch_size=N,
        max_epochs=6,
        n_threads=n_threads,
        rng=0,
    )
    assert_close(history.train_loss, losses, 1e-9)
    for kind in KINDS:
        for mine, theirs in zip(getattr(model.parameters, kind), parts[kind], strict=True):
            assert_close(mine, theirs.detach().numpy(), 1e-7, kind)


def test_training_learns_repeats_and_resumes_bit_for_bit():
    x, y, _ = data(n=203)
    kwargs = {"batch_size": 16, "validation": 0.2, "rng": 3, "n_threads": 2}
    whole, again, cut = (make(dropout=0.1, dtype="float32") for _ in range(3))
    history = lamina.train(whole, x, y, max_epochs=6, **kwargs)
    lamina.train(again, x, y, max_epochs=6, **kwargs)
    assert_same_bits(whole.theta, again.theta)
    first = lamina.train(cut, x, y, max_epochs=2, **kwargs)
    lamina.train(cut, x, y, max_epochs=6, resume=first, **kwargs)
    assert_same_bits(whole.theta, cut.theta)
    assert history.train_loss[-1] < history.train_loss[0]
    best = history.best_epoch
    assert history.validation_loss[best] == min(history.validation_loss)


def test_a_row_does_not_depend_on_its_batch():
    model = make(dtype="float32")
    x = data(n=301)[0]
    whole = model.predict_members(x)
    for i in (0, 1, 150, 300):
        assert_same_bits(model.predict_members(x[i : i + 1])[:, 0], whole[:, i])
    assert model(x[:0]).shape == (0, 3)


def test_members_begin_different_and_share_their_weights():
    model = lamina.BatchEnsemble(4, (8,), 1, n_members=6, rng=0)
    first, second = model.parameters.input_scales
    assert set(np.unique(first)) == {-1.0, 1.0}
    assert (second == 1).all()
    assert model.n_params == 4 * 8 + 8 + 6 * (4 + 16) + 6 * (8 + 2)
    assert len({row.tobytes() for row in model.predict_members(np.ones((3, 4)))}) > 1


@pytest.mark.parametrize("way", ["file", "pickle", "deepcopy"])
def test_it_survives(way, tmp_path):
    model = make()
    if way == "file":
        model.save(tmp_path / "m")
        again = lamina.load(tmp_path / "m")
    else:
        again = copy.deepcopy(model) if way == "deepcopy" else pickle.loads(pickle.dumps(model))
    assert again.spec == model.spec
    x = data()[0]
    assert_same_bits(again(x), model(x))


@pytest.mark.parametrize(
    "change",
    [
        {"shared_by": 4},
        {"shared_by": 10**9},
        {"shared_by": "5"},
        {"residual": True},
        {"skips": [[2, [0]]]},
        {"more": 1},
        {"theta": np.zeros(3)},
        {"theta": np.zeros(3, np.float32)},
    ],
)
def test_a_forged_file_is_a_model_file_error(change, tmp_path):
    model = make()
    arrays = {"theta": change.pop("theta", model.theta)}
    modelfile.write(tmp_path / "m", "batch_ensemble", model.spec.to_json() | change, arrays)
    with pytest.raises(lamina.ModelFileError):
        lamina.load(tmp_path / "m")


def test_mistakes_are_named():
    with pytest.raises(lamina.SpecError, match="n_members"):
        lamina.BatchEnsemble(2, (3,), 1, n_members=0)
    with pytest.raises(lamina.SpecError, match="65536"):
        lamina.BatchEnsemble(2, (3,), 1, n_members=65537)
    model = make(dtype="float32")
    x, y, _ = data()
    with pytest.raises(lamina.ShapeError):
        model(x[:, :2])
    with pytest.raises(lamina.SpecError, match="BatchEnsemble"):
        lamina.train(model, x, y, precision="bfloat16")
    smooth = make(d_out=1, output="identity", activation="tanh")
    for call in (
        lambda: lamina.train(smooth, x, x[:, :1], loss=lamina.Eikonal()),
        lambda: smooth.loss(x, x[:, :1], lamina.Eikonal()),
    ):
        with pytest.raises(lamina.SpecError, match="loss of the outputs"):
            call()
    with pytest.raises(lamina.SpecError, match="every one to be a Network"):
        lamina.train_many([model], x, y)
    assert isinstance(model.spec, BatchEnsembleSpec)
