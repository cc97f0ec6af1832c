"""train with LBFGS: against closed forms and scikit-learn."""

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge
from tests.core.small_runs import D, classes, make, numbers, stop_after
from tests.tolerances import assert_close, rounding

import lamina
from lamina.core.history import STOPPED
from lamina.core.lbfgs import Objective

# --- L-BFGS against closed forms and scikit-learn ----------------------------------------------


def test_lbfgs_solves_ridge_regression():
    x, y = numbers(60)
    l2 = 0.02
    net = lamina.Network(D, (), 2, dtype="float64", rng=0)
    history = lamina.train(
        net, x, y, optimizer=lamina.LBFGS(l2=l2, tol=1e-10, max_iter=500), max_epochs=3
    )
    # mean over rows and both outputs + l2/2 |W|^2 = (1/(2n)) (sum of squares + n l2 |W|^2)
    ridge = Ridge(alpha=60 * l2).fit(x, y)
    assert_close(net.weights[0], ridge.coef_, 1e-8)
    assert_close(net.biases[0], ridge.intercept_, 1e-8)
    assert history.stopped == "converged"
    assert history.state is None
    assert 3 < history.epochs == len(history.times) < 500


def test_lbfgs_solves_logistic_regression():
    x, y = classes(80)
    y = (x[:, 0] + 0.5 * np.random.default_rng(1).normal(size=80) > 0).astype(float)
    net = lamina.Network(D, (), 1, output="sigmoid", dtype="float64", rng=0)
    l2 = 0.01
    w = np.linspace(0.5, 1.5, 80)
    w /= w.mean()
    lamina.train(net, x, y, sample_weight=w, optimizer=lamina.LBFGS(l2=l2, tol=1e-10))
    theirs = LogisticRegression(C=1 / (80 * l2), tol=1e-10, max_iter=1000).fit(x, y, w)
    assert_close(net.weights[0], theirs.coef_, 1e-7)


def test_lbfgs_in_float32_ends_and_stops_when_asked():
    x, y = classes()
    net = make(dtype="float32")
    history = lamina.train(net, x, y, optimizer=lamina.LBFGS(l2=1e-3), max_epochs=2000)
    assert history.stopped == "converged"
    history = lamina.train(make(), x, y, optimizer=lamina.LBFGS(), callbacks=stop_after(3))
    assert (history.stopped, history.epochs) == ("callback", 3)
    history = lamina.train(make(), x, y, optimizer=lamina.LBFGS(), max_epochs=4)
    assert (history.stopped, history.epochs) == ("max_epochs", 4)
    history = lamina.train(make(), x, y, optimizer=lamina.LBFGS(), max_seconds=1e-9)
    assert (history.stopped, history.epochs) == ("max_seconds", 1)


def test_lbfgs_keeps_the_iterate_with_the_lowest_validation_loss():
    x, y = classes(40)
    other = classes(40, seed=1)
    net = make()
    history = lamina.train(net, x, y, optimizer=lamina.LBFGS(), validation=other, max_epochs=40)
    assert history.best_epoch == int(np.argmin(history.validation_loss)) < 39
    assert_close(net.loss(*other), min(history.validation_loss), rounding("float64", 40))


def test_a_line_search_that_fails_is_not_called_convergence(monkeypatch):
    x, y = classes()
    net = make()
    right = Objective.__call__
    monkeypatch.setattr(
        Objective, "__call__", lambda self, theta: (right(self, theta)[0], -right(self, theta)[1])
    )
    history = lamina.train(net, x, y, optimizer=lamina.LBFGS(), max_epochs=20)
    assert history.stopped == "line_search"
    assert history.stopped in STOPPED
    assert np.isfinite(net.theta).all()
