"""Schedules against closed forms and PyTorch; optimiser configurations and their errors."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from tests.tolerances import assert_close, assert_same_bits, rounding
from torch.optim import lr_scheduler

import lamina
from lamina.core.errors import SpecError
from lamina.core.optim import native_hyper, resolve_optimizer
from lamina.core.schedules import learning_rates

N_STEPS = 40
LR = 0.3
TOLERANCE = rounding("float64", N_STEPS)  # PyTorch's schedules multiply step by step


def torch_rates(make):
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = torch.optim.SGD([parameter], lr=LR)
    schedule = make(optimizer)
    rates = []
    for _ in range(N_STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


TORCH = {
    "constant": (lamina.constant(LR), lambda o: lr_scheduler.ConstantLR(o, 1.0)),
    "cosine": (
        lamina.cosine(LR, final=0.01),
        lambda o: lr_scheduler.CosineAnnealingLR(o, N_STEPS, eta_min=0.01),
    ),
    "linear": (
        lamina.linear(LR, final=0.03),
        lambda o: lr_scheduler.LinearLR(o, 1.0, 0.1, total_iters=N_STEPS),
    ),
    "step_decay": (
        lamina.step_decay(LR, every=0.25, factor=0.5),
        lambda o: lr_scheduler.StepLR(o, 10, gamma=0.5),
    ),
    "exponential": (
        lamina.exponential(LR, decay=0.1),
        lambda o: lr_scheduler.ExponentialLR(o, 0.1 ** (1 / N_STEPS)),
    ),
    "one_cycle": (
        lamina.one_cycle(LR),
        lambda o: lr_scheduler.OneCycleLR(o, LR, total_steps=N_STEPS, cycle_momentum=False),
    ),
}


@pytest.mark.parametrize("name", [name for name in TORCH if name != "one_cycle"])
def test_schedule_matches_pytorch(name):
    ours, make = TORCH[name]
    assert_close(ours(np.arange(N_STEPS), N_STEPS), torch_rates(make), TOLERANCE)


def test_one_cycle_matches_pytorch():
    ours, make = TORCH["one_cycle"]
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = torch.optim.SGD([parameter], lr=LR)
    schedule = make(optimizer)
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(N_STEPS - 1):  # one step more is an error there
        optimizer.step()
        schedule.step()
        rates.append(optimizer.param_groups[0]["lr"])
    assert_close(ours(np.arange(N_STEPS), N_STEPS), rates, TOLERANCE)


def test_warm_up_is_a_line_to_the_peak_and_the_rest_fits_in_what_remains():
    t = np.arange(N_STEPS)
    rates = lamina.cosine(LR, warmup=0.25)(t, N_STEPS)
    assert_close(rates[:10], LR * (t[:10] + 1) / 10, TOLERANCE)
    assert_close(rates[10:], LR * (1 + np.cos(np.pi * np.arange(30) / 30)) / 2, TOLERANCE)
    rates = lamina.linear(LR, warmup=0.25, final=0.1)(t, N_STEPS)
    assert_close(rates[10:], LR + (0.1 - LR) * np.arange(30) / 30, TOLERANCE)
    rates = lamina.exponential(LR, warmup=0.25, decay=0.04)(t, N_STEPS)
    assert_close(rates[[9, 10, 25]], [LR, LR, LR * 0.2], TOLERANCE)


def test_inverse_sqrt_matches_its_closed_form():
    t = np.arange(N_STEPS)
    n_warm = 8
    vaswani = np.minimum((t + 1.0) ** -0.5, (t + 1) * n_warm**-1.5) * LR * n_warm**0.5
    assert_close(lamina.inverse_sqrt(LR, warmup=0.2)(t, N_STEPS), vaswani, TOLERANCE)


SCHEDULES = [
    lamina.constant,
    lamina.cosine,
    lamina.linear,
    lamina.step_decay,
    lamina.exponential,
    lamina.one_cycle,
    lamina.inverse_sqrt,
]


@pytest.mark.parametrize("make", SCHEDULES)
@pytest.mark.parametrize("n_steps", [1, 2, 3, 100])
def test_every_schedule_is_finite_within_bounds_and_takes_one_step_or_many(make, n_steps):
    schedule = make(LR)
    many = schedule(np.arange(n_steps), n_steps)
    assert many.shape == (n_steps,)
    assert np.isfinite(many).all()
    assert (many >= 0).all()
    assert (many <= LR * (1 + TOLERANCE)).all()
    one = [float(schedule(t, n_steps)) for t in range(n_steps)]
    np.testing.assert_array_equal(one, many)


@pytest.mark.parametrize("make", SCHEDULES)
def test_schedules_are_frozen_comparable_and_pickle(make):
    schedule = make(LR)
    assert schedule == make(LR)
    assert schedule != make(2 * LR)
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.lr = 1.0


@pytest.mark.parametrize(
    "make",
    [
        lambda: lamina.cosine(0.0),
        lambda: lamina.cosine(-1.0),
        lambda: lamina.cosine("fast"),
        lambda: lamina.cosine(float("nan")),
        lambda: lamina.cosine(0.1, warmup=1.0),
        lambda: lamina.linear(0.1, final=-0.1),
        lambda: lamina.step_decay(0.1, every=0.0),
        lambda: lamina.exponential(0.1, decay=0.0),
        lambda: lamina.one_cycle(0.1, start=0.0),
        lambda: lamina.AdamW(lr=0),
        lambda: lamina.AdamW(beta_1=1.0),
        lambda: lamina.AdamW(epsilon=0),
        lambda: lamina.AdamW(weight_decay=-1),
        lambda: lamina.Adam(l2=float("inf")),
        lambda: lamina.SGD(0.1, momentum=1.0),
        lambda: lamina.SGD(0.1, momentum=0.9, nesterov="yes"),
        lambda: lamina.SGD(0.1, nesterov=True),
        lambda: lamina.LBFGS(max_iter=0),
        lambda: lamina.LBFGS(memory=0),
        lambda: lamina.LBFGS(tol=-1),
        lambda: resolve_optimizer("adam", "train"),
        lambda: resolve_optimizer(lamina.AdamW, "train"),
    ],
)
def test_a_bad_option_gives_one_sentence(make):
    with pytest.raises(SpecError, match=r"^\w+: expected .*, got .*\. .*\.$"):
        make()


def test_adam_is_adamw_without_decay_and_none_is_adamw():
    assert native_hyper(lamina.Adam()) == (
        "adam",
        {**native_hyper(lamina.AdamW())[1]} | {"weight_decay": 0.0},
    )
    assert resolve_optimizer(None, "train") == lamina.AdamW()


def test_the_engine_is_told_every_number_but_the_learning_rate():
    kind, hyper = native_hyper(lamina.SGD(0.1, momentum=0.9, nesterov=True, l2=0.5))
    assert kind == "sgd"
    assert hyper == {"momentum": 0.9, "nesterov": True, "weight_decay": 0.0, "l2": 0.5}


@pytest.mark.parametrize("make", SCHEDULES)
def test_learning_rates_of_a_part_are_those_of_the_whole_bit_for_bit(make):
    n_steps = 1003
    whole = learning_rates(make(LR), 0, n_steps, n_steps)
    for start, stop in [(0, 1), (7, 19), (500, 501), (3, 1003), (998, 1003)]:
        assert_same_bits(learning_rates(make(LR), start, stop, n_steps), whole[start:stop])


def test_a_number_is_its_own_schedule():
    np.testing.assert_array_equal(learning_rates(LR, 3, 6, N_STEPS), [LR] * 3)
