"""Temperatures against those that fresh rows ask for."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from lamina.tabular.calibrate import PRIOR, find_temperature, member_temperature
from lamina.tabular.head import tempered

N, K = 20_000, 8


def members_and_classes(
    multilabel: bool, sharpness: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return probabilities (K, N, 2) of members that see the truth with noise, and what happens."""
    rng = np.random.default_rng(0)
    z = 1.5 * rng.normal(size=(N, 2))
    noisy = sharpness * (z + 0.8 * rng.normal(size=(K, N, 2)))
    if multilabel:
        return 1 / (1 + np.exp(-noisy)), (rng.random((N, 2)) < 1 / (1 + np.exp(-z))).astype(int)
    truth = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    members = np.exp(noisy) / np.exp(noisy).sum(axis=2, keepdims=True)
    return members, (rng.random(N) > truth[:, 0]).astype(int)


def best(
    p: NDArray[np.float64], y: NDArray[np.int64], multilabel: bool, n_prior: int = 10**9
) -> float:
    """Return the temperature of least log-loss, by a search of its own."""

    def loss(t: float) -> float:
        q = p ** (1 / t)
        prior = np.log(t) ** 2 / (2 * PRIOR**2 * n_prior)
        if multilabel:
            q = q / (q + (1 - p) ** (1 / t))
            return float(prior - 2 * np.mean(np.log(np.where(y > 0, q, 1 - q))))
        q = q / q.sum(axis=1, keepdims=True)
        return float(prior - np.mean(np.log(q[np.arange(len(q)), y])))

    return float(minimize_scalar(loss, bounds=(0.2, 5), method="bounded").x)


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("sharpness", [0.6, 1.0, 2.0])
def test_temperature_is_that_of_least_log_loss(multilabel: bool, sharpness: float) -> None:
    members, y = members_and_classes(multilabel, sharpness)
    for n in (60, N):
        p, of = members[0, :n], y[:n]
        found = find_temperature(p, of, multilabel=multilabel)
        assert found == pytest.approx(best(p, of, multilabel, n), rel=1e-3)


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("n_held", [1, 2])
@pytest.mark.parametrize("sharpness", [0.8, 1.0, 1.6])
def test_members_out_of_fold_give_the_ensemble_its_temperature(
    multilabel: bool, n_held: int, sharpness: float
) -> None:
    members, y = members_and_classes(multilabel, sharpness)
    output = members[:n_held].mean(axis=0)  # as if all others had learnt from the rows
    own = member_temperature(members[:, :4000], n_held, multilabel=multilabel)
    found = find_temperature(tempered(output, own, multilabel), y, multilabel=multilabel)
    needed = best(members.mean(axis=0), y, multilabel)
    uncorrected = find_temperature(output, y, multilabel=multilabel)
    assert abs(np.log(found / needed)) < 0.1
    assert abs(np.log(found / needed)) < 0.5 * abs(np.log(uncorrected / needed))


def test_few_rows_or_members_say_nothing_of_temperatures() -> None:
    members, y = members_and_classes(False, 2.0)
    assert find_temperature(members[0, :40], y[:40]) == 1
    assert member_temperature(members[:, :40], 1) == 1
    assert member_temperature(members[:3], 2) == 1
