"""Volume rendering against PyTorch's autograd, closed forms and brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from lamina.core.losses import SquaredError
from lamina.core.network import Network
from lamina.fields.occupancy import CELLS, OccupancyGrid, box_range
from lamina.fields.radiance import _target, encode_directions
from lamina.fields.volume_rendering import importance_samples, render, render_backward

Array = np.ndarray[Any, Any]
COUNTS = [3, 0, 1, 7, 0]  # samples of each ray: some rays have none


def some_rays() -> tuple[Array, Array, Array, Array, Array]:
    rng = np.random.default_rng(0)
    ray = np.repeat(np.arange(len(COUNTS)), COUNTS)
    n = len(ray)
    return (
        rng.uniform(0, 2, n),
        rng.uniform(size=(n, 3)),
        ray,
        rng.uniform(size=(len(COUNTS), 3)),
        rng.normal(size=(len(COUNTS), 3)),
    )


def by_torch(optical: Any, colours: Any, ray: Array, background: Array) -> Any:
    """Colours of rays, one ray and one sample at a time."""
    rows = []
    for r in range(len(background)):
        through, seen = torch.ones((), dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        for i in np.flatnonzero(ray == r):
            hidden = 1 - torch.exp(-optical[i])
            seen = seen + through * hidden * colours[i]
            through = through * (1 - hidden)
        rows.append(seen + through * torch.tensor(background[r]))
    return torch.stack(rows)


def test_rendering_and_its_gradient_are_pytorchs() -> None:
    optical, colours, ray, background, grad = some_rays()
    o, c = (torch.tensor(a, requires_grad=True) for a in (optical, colours))
    expected = by_torch(o, c, ray, background)
    seen = render(optical, colours, ray, len(background), background)
    assert np.allclose(seen.colour, expected.detach().numpy(), atol=1e-14)
    assert np.allclose(seen.colour[1], background[1])
    (expected * torch.tensor(grad)).sum().backward()
    grad_optical, grad_colours = render_backward(seen, colours, ray, background, grad)
    assert np.allclose(grad_optical, o.grad.numpy(), atol=1e-14)
    assert np.allclose(grad_colours, c.grad.numpy(), atol=1e-14)


def test_the_gradient_is_that_of_finite_differences() -> None:
    optical, colours, ray, background, grad = some_rays()

    def value(o: Array) -> float:
        return float((render(o, colours, ray, len(background), background).colour * grad).sum())

    seen = render(optical, colours, ray, len(background), background)
    ours = render_backward(seen, colours, ray, background, grad)[0]
    for i in range(len(optical)):
        step = np.zeros_like(optical)
        step[i] = 1e-6
        assert ours[i] == pytest.approx(
            (value(optical + step) - value(optical - step)) / 2e-6, abs=1e-8
        )


def test_an_even_fog_absorbs_exponentially() -> None:
    ray = np.zeros(50, int)
    seen = render(np.full(50, 0.03), np.ones((50, 3)), ray, 1, np.zeros((1, 3)))
    assert seen.opacity[0] == pytest.approx(1 - np.exp(-1.5))


def test_importance_samples_follow_the_weights() -> None:
    rng = np.random.default_rng(0)
    edges = np.broadcast_to(np.array([0.0, 1.0, 3.0, 4.0]), (2000, 4))
    weights = np.broadcast_to(np.array([1.0, 0.0, 3.0]), (2000, 3))
    places = importance_samples(edges, weights, 4, rng)
    assert (np.diff(places, axis=1) >= 0).all()

    def cdf(x: Array) -> Array:
        return np.interp(x, [0, 1, 3, 4], [0, 0.25, 0.25, 1])

    one_of_each = places[np.arange(2000), rng.integers(4, size=2000)]
    assert kstest(one_of_each, cdf).pvalue > 0.01
    middles = importance_samples(edges[:1], weights[:1], 4, None)
    assert np.allclose(middles, [[0.5, 3 + 1 / 6, 3.5, 3 + 5 / 6]], atol=1e-3)


def test_spherical_harmonics_are_orthonormal() -> None:
    z, weight = np.polynomial.legendre.leggauss(8)
    turn = 2 * np.pi * np.arange(16) / 16
    flat = np.sqrt(1 - z**2)
    directions = np.stack(
        [np.outer(flat, np.cos(turn)), np.outer(flat, np.sin(turn)), np.outer(z, np.ones(16))], -1
    ).reshape(-1, 3)
    area = np.repeat(weight, 16) * 2 * np.pi / 16
    y = encode_directions("hash", directions).astype(np.float64)
    assert np.allclose(y.T @ (area[:, None] * y), np.eye(16), atol=1e-6)


def test_a_made_up_target_gives_the_wanted_gradient() -> None:
    rng = np.random.default_rng(0)
    net = Network(3, (5,), 2, activation="tanh", output="sigmoid", dtype="float64", rng=0)
    x, wanted = rng.normal(size=(7, 3)), rng.normal(size=(7, 2))
    said = net(x)
    target = said - wanted * 0.5 * said.size
    assert np.allclose(_target(said.astype(np.float32), wanted), target, atol=1e-5)
    ours = net.gradients(x, target, SquaredError()).weights[0]
    theta = net.theta.copy()
    for i in range(4):
        values = []
        for step in (1e-6, -1e-6):
            moved = theta.copy()
            moved[i] += step
            net.theta = moved
            values.append(float((net(x) * wanted).sum()))
        assert ours.ravel()[i] == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-6)


def test_rays_enter_and_leave_the_box_where_they_should() -> None:
    origins = np.array([[-3.0, 0, 0], [0.5, 0, 0], [-3, 2, 0], [0, 0, 5], [-3, 1.5, 0]])
    directions = np.array([[1.0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 1], [0.8, -0.6, 0]])
    near, far = box_range(origins, directions)
    assert np.allclose(near, [2, 0, 0, 0, 2.5])
    assert np.allclose(
        far, [4, 0.5, 0, 0, 2.5 + 1 / 0.6 - (1.5 - 1) / 0.6 + 0.5 / 0.6 - 0.5 / 0.6], atol=2
    )
    assert far[4] > near[4]
    assert (far[[2, 3]] == near[[2, 3]]).all()


def test_marching_finds_every_step_in_a_taken_cell_and_no_other() -> None:
    rng = np.random.default_rng(0)
    grid = OccupancyGrid(0.0135)
    taken = np.zeros((CELLS,) * 3, bool)
    taken[10:30, 40:44, 90:] = True
    taken[50, 50, 50] = taken[95, 95, 95] = True
    taken |= rng.uniform(size=taken.shape) < 0.05
    grid.set_taken(taken.ravel())
    origins = rng.uniform(-2, 2, (200, 3))
    directions = rng.uniform(-0.9, 0.9, (200, 3)) - origins
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    near, far = box_range(origins, directions)
    offset = rng.uniform(size=200)
    found = grid.march(origins, directions, near, far, offset)
    o, d = origins.astype(np.float32), directions.astype(np.float32)
    expected = 0
    for r in range(200):
        t = np.float32(near[r]) + np.float32(offset[r]) * np.float32(0.0135)
        t = t + np.float32(0.0135) * np.arange(400, dtype=np.float32)
        t = t[t < far[r]]
        cells = ((o[r] + t[:, None] * d[r] + np.float32(1)) * np.float32(CELLS / 2)).astype(int)
        inside = taken[tuple(np.clip(cells, 0, CELLS - 1).T)]
        mine = found.distance[found.ray == r]
        assert np.allclose(np.sort(mine), mine)
        assert abs(len(mine) - inside.sum()) <= 1  # a step on a wall may round either way
        expected += inside.sum()
    assert expected > 500
    assert abs(len(found.ray) - expected) < 0.01 * expected


def test_an_occupancy_grid_learns_where_density_is() -> None:
    grid = OccupancyGrid(0.0135)
    rng = np.random.default_rng(0)

    def density(x: Array) -> Array:
        return np.where(np.linalg.norm(x, axis=1) < 0.5, 50.0, 0.0)

    for _ in range(60):
        grid.update(density, 1 << 15, rng)
    assert grid.share == pytest.approx(4 / 3 * np.pi * 0.5**3 / 8, rel=0.2)
    allowed = np.zeros(CELLS**3, bool)
    grid.allow(allowed)
    grid.update(density, 1000, rng)
    assert grid.share == 0
