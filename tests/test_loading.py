"""lamina.load: every role, and specifications that lie."""

import importlib
import json
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.tolerances import assert_close, assert_same_bits, rounding

import lamina
from lamina import loading
from lamina.core import modelfile

FIXTURES = Path(__file__).parent / "fixtures"
NETWORK = lamina.Network(3, (4, 4), 2, skips={3: (0,)}, residual=True, dropout=0.25, rng=0)


@pytest.mark.parametrize(
    ("widths", "options"),
    [
        ((), {}),
        ((4,), {"activation": "gelu", "output": "softmax", "dtype": "float64"}),
        ((4, 4, 5), {"activation": ("sine", "mish", "step"), "residual": True, "dropout": 0.5}),
        ((4, 4, 5), {"skips": {3: (0, 1), 4: (0,)}, "output": "exp"}),
    ],
)
def test_a_network_loads_as_it_was_saved(tmp_path, widths, options):
    net = lamina.Network(3, widths, 2, rng=0, **options)
    net.save(tmp_path / "net.lamina")
    loaded = lamina.load(tmp_path / "net.lamina")
    assert isinstance(loaded, lamina.Network)
    assert loaded.spec == net.spec
    assert_same_bits(loaded.theta, net.theta)
    x = np.random.default_rng(0).normal(size=(5, 3))
    assert_same_bits(loaded(x), net(x))


def test_every_loader_exists():
    for place in loading._LOADERS.values():
        module, _, name = place.partition(":")
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        assert callable(found)


def test_a_frozen_file_of_version_1_loads_for_ever():
    expected = json.loads((FIXTURES / "network_v1.json").read_text(encoding="utf-8"))
    net = lamina.load(FIXTURES / "network_v1.lamina")
    assert net.spec.to_json() == expected["spec"]
    assert_same_bits(net.theta, np.array(expected["theta"]))
    assert_close(net(expected["x"]), expected["y_pred"], rounding("float64", 12))


def test_an_unknown_role_says_to_upgrade(tmp_path):
    modelfile.write(tmp_path / "m", "hologram", {}, {})
    with pytest.raises(lamina.ModelFileError, match=r"got 'hologram'\. Upgrade lamina"):
        lamina.load(tmp_path / "m")


@pytest.mark.parametrize(
    "change",
    [
        {"widths": [4]},
        {"widths": [4, 10**12]},
        {"d_in": 10**30},
        {"d_in": 0},
        {"d_in": True},
        {"d_in": "3"},
        {"activations": ["relu"]},
        {"activations": [["relu"], {}]},
        {"activations": ["relu", "swoosh"]},
        {"output": "softermax"},
        {"output": []},
        {"skips": {"3": [0]}},
        {"skips": [[3, [[]]]]},
        {"skips": [[3, [{}]]]},
        {"skips": [[[3], [0]]]},
        {"dropout": 1},
        {"dropout": None},
        {"residual": "yes"},
        {"dtype": "float16"},
        {"dtype": "float64"},
        {"dtype": {}},
        {"encoding": "hash grid"},
        {"extra": 1},
    ],
)
def test_a_network_whose_specification_lies_is_refused(tmp_path, change):
    modelfile.write(
        tmp_path / "m", "network", {**NETWORK.spec.to_json(), **change}, {"theta": NETWORK.theta}
    )
    with pytest.raises(lamina.ModelFileError, match=r"load '.*m': expected a network") as caught:
        lamina.load(tmp_path / "m")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"theta": NETWORK.theta, "phi": NETWORK.theta},
        {"theta": NETWORK.theta[:-1]},
        {"theta": NETWORK.theta[None]},
        {"theta": NETWORK.theta.astype("float64")},
        {"theta": np.zeros(NETWORK.n_params, "int32")},
    ],
)
def test_a_network_whose_parameters_do_not_fit_is_refused(tmp_path, arrays):
    modelfile.write(tmp_path / "m", "network", NETWORK.spec.to_json(), arrays)
    with pytest.raises(lamina.ModelFileError, match="expected a network"):
        lamina.load(tmp_path / "m")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 5)
    | st.sampled_from([2**31, 2**63, 10**25, 0.5, "relu", "float64", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["d_in", "x"]), inner, max_size=2)
    ),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(role=st.sampled_from(list(loading._LOADERS)), data=st.data())
def test_any_forged_specification_loads_or_gives_one_sentence(tmp_path, role, data):
    spec = NETWORK.spec.to_json()
    for key in data.draw(st.lists(st.sampled_from(list(spec)), min_size=1, max_size=3)):
        spec[key] = data.draw(JSON)
    if role.startswith("tabular"):
        fields = ("parameters", "network", "inputs", "head", "report", "classes", "n_members")
        spec = data.draw(st.fixed_dictionaries(dict.fromkeys(fields, JSON)))
    elif role != "network":
        spec = data.draw(JSON.map(lambda value: {"parameters": value, "dims": value}))
    modelfile.write(tmp_path / "m", role, spec, {"theta": NETWORK.theta})
    with suppress(lamina.ModelFileError):
        lamina.load(tmp_path / "m")


@pytest.mark.parametrize(
    "error",
    [
        KeyError("widths"),
        IndexError(),
        TypeError(),
        AttributeError(),
        OverflowError(),
        ValueError(),
    ],
)
def test_a_loader_that_trips_over_a_forged_file_gives_one_sentence(tmp_path, monkeypatch, error):
    def trip(spec, arrays):
        raise error

    NETWORK.save(tmp_path / "m")
    monkeypatch.setattr(lamina.Network, "from_file_parts", trip)
    with pytest.raises(lamina.ModelFileError, match="expected a network whose parts fit") as caught:
        lamina.load(tmp_path / "m")
    assert caught.value.__cause__ is error


def test_a_file_may_be_renamed_and_copied(tmp_path):
    shutil.copy(FIXTURES / "network_v1.lamina", tmp_path / "any.name")
    assert lamina.load(str(tmp_path / "any.name")).spec.d_in == 3
