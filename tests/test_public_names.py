"""The public names, each a promise, and what importing them costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lamina

PUBLIC = [
    "AbsoluteError",
    "Adam",
    "AdamW",
    "BatchEnsemble",
    "BinaryCrossEntropy",
    "ColumnEmbeddings",
    "CrossEntropy",
    "DataError",
    "DivergenceError",
    "Eikonal",
    "Ensemble",
    "EpochReport",
    "Fourier",
    "HashGrid",
    "History",
    "Huber",
    "JetLoss",
    "LBFGS",
    "LaminaError",
    "MLPClassifier",
    "MLPRegressor",
    "MissingExtraError",
    "ModelFileError",
    "Network",
    "OneBlob",
    "Pinball",
    "Poisson",
    "RandomFourier",
    "SGD",
    "ShapeError",
    "Sobolev",
    "SpecError",
    "SquaredError",
    "TabularClassifier",
    "TabularRegressor",
    "__version__",
    "constant",
    "cosine",
    "exponential",
    "from_sklearn",
    "from_torch",
    "info",
    "inverse_sqrt",
    "linear",
    "load",
    "one_cycle",
    "step_decay",
    "to_onnx",
    "to_sklearn",
    "to_torch",
    "train",
    "train_many",
]

HEAVY = ["sklearn", "scipy", "torch", "pandas", "polars", "pyarrow", "matplotlib", "onnx", "click"]


def test_the_list_of_public_names_is_frozen():
    assert sorted(lamina.__all__) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_exists_and_says_what_it_is(name):
    value = getattr(lamina, name)
    assert name in dir(lamina)
    if name != "__version__":
        assert value.__doc__
        assert value.__name__ == name


def test_type_checkers_see_the_same_names_from_the_same_places():
    tree = ast.parse(Path(lamina.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == lamina._HOME


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'lamina' has no attribute 'MLP'"):
        lamina.MLP  # noqa: B018
    assert not hasattr(lamina, "core_")


def loaded_after(code: str) -> list[str]:
    """Return which heavy packages a fresh interpreter holds after `code`."""
    code += f"\nimport sys; print(*(name for name in {HEAVY} if name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.split()


@pytest.mark.parametrize(
    "code",
    [
        "import lamina",
        "import lamina; lamina.Network, lamina.train, lamina.cosine, lamina.Huber, lamina.load",
        "import lamina; lamina.info(); lamina.Network(2, (3,), 1)([[1, 2]])",
    ],
)
def test_import_loads_nothing_heavy(code):
    assert loaded_after(code) == []


def test_a_heavy_import_would_be_seen():
    assert loaded_after("import lamina, scipy") == ["scipy"]


def test_the_package_is_typed():
    assert (Path(lamina.__file__).parent / "py.typed").is_file()
