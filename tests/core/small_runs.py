"""Small networks and data for the tests of `train`."""

import numpy as np

import lamina

D = 3


def make(d_out=2, output="softmax", dtype="float64", **kwargs):
    kwargs = {"activation": "tanh", "rng": 0} | kwargs
    return lamina.Network(D, (8,), d_out, output=output, dtype=dtype, **kwargs)


def classes(n=97, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, D))
    return x, (x[:, 0] * x[:, 1] > 0).astype(int)


def numbers(n=97, d_out=2, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, D))
    return x, np.sin(x @ rng.normal(size=(D, d_out)))


def stop_after(n_epochs):
    return lambda report: report.epoch + 1 == n_epochs
