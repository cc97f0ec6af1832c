"""scikit-learn's own tests of its multilayer perceptrons, with nothing changed but the import."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

# Theirs reads private attributes; what each means is tested in test_mlp_semantics.py.
REPLACED = (
    "test_fit",
    "test_gradient",
    "test_learning_rate_warmstart",
    "test_adaptive_learning_rate",
    "test_n_iter_no_change",
    "test_n_iter_no_change_inf",
)
THEIRS = "from sklearn.neural_network import MLPClassifier, MLPRegressor\n"
OURS = "from lamina import MLPClassifier, MLPRegressor\n"

pytestmark = pytest.mark.filterwarnings("default")  # as scikit-learn runs them


@pytest.fixture
def global_random_seed() -> int:
    """scikit-learn's default for its fixture of the same name."""
    return 42


def _installed_suite() -> Path:
    spec = importlib.util.find_spec("sklearn.neural_network.tests.test_mlp")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


_path = _installed_suite()
_source = _path.read_text(encoding="utf-8")
assert _source.count(THEIRS) == 1, "scikit-learn's suite imports its estimators in another way"
exec(compile(_source.replace(THEIRS, OURS), str(_path), "exec"), globals())
for _name in REPLACED:
    del globals()[_name]


def test_the_suite_runs_against_ours():
    """The exchange of the import took hold, and the suite is there as a whole."""
    for name in ("MLPClassifier", "MLPRegressor"):
        assert globals()[name].__module__.startswith("lamina.")
    assert sum(name.startswith("test_") for name in globals()) > 35
