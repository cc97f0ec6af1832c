"""The shape of the house: who imports whom, what an import costs, what the lock holds."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "lamina"
STANDARD = sys.stdlib_module_names


def imports_native(source: str) -> bool:
    """Tell whether a module's source reaches lamina._native, however it spells it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import) and any("_native" in a.name for a in node.names):
            return True
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(alias.name for alias in node.names)]
            if any("_native" in name.split(".") for name in names):
                return True
        if isinstance(node, ast.Constant) and node.value in ("lamina._native", "._native"):
            return True  # importlib.import_module
    return False


def importers_of_native(package: Path) -> list[str]:
    return sorted(
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if imports_native(path.read_text(encoding="utf-8"))
    )


def test_only_core_engine_imports_native() -> None:
    assert importers_of_native(PACKAGE) == ["core/engine.py"]


@pytest.mark.parametrize(
    "line",
    [
        "import lamina._native",
        "import lamina._native as native",
        "from lamina import _native",
        "from lamina._native import isa",
        "from .. import _native",
        "from .._native import isa",
        "def late():\n    from lamina import _native",
        "import importlib; importlib.import_module('lamina._native')",
    ],
)
def test_a_planted_import_of_native_is_found(tmp_path: Path, line: str) -> None:
    (tmp_path / "planted.py").write_text(line)
    (tmp_path / "clean.py").write_text("import numpy\nfrom lamina.core import engine\n")
    assert importers_of_native(tmp_path) == ["planted.py"]


def uses(path: Path, room: str) -> set[str]:
    """Return the files of a room that one of them imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == room:
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{room}."):
            found.add((node.module or "").removeprefix(f"{room}.").split(".")[0])
    return found


def test_the_table_of_theory_has_every_file_after_those_it_uses() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("`theory/` in the order of flow")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    files = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    room = PACKAGE / "theory"
    assert sorted(files) == sorted(p.stem for p in room.glob("*.py") if p.stem != "__init__")
    for place, name in enumerate(files):
        assert uses(room / f"{name}.py", "lamina.theory") <= set(files[:place]), name


def lint_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    """Judge the contracts on the package in `tree`/src."""
    # -S leaves out the editable install, which would lead back to our own sources.
    path = os.pathsep.join([str(tree / "src"), sysconfig.get_path("purelib")])
    code = (
        "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    )
    return subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        (None, None, None),
        ("core/errors.py", "from lamina.core import checks", "core: a file uses only"),
        ("core/errors.py", "import lamina.tabular.table", "Imports run one way"),
        ("tabular/table.py", "import lamina.cli.main", "Imports run one way"),
        ("bridges/sklearn.py", "def late():\n    import lamina.tabular.mlp", "Imports run one way"),
        ("plots/style.py", "import lamina.bridges.onnx", "Imports run one way"),
        ("core/errors.py", "import pandas", "core needs NumPy"),
        ("tabular/table.py", "def late():\n    import lamina.tabular.inputs", "No cycles"),
    ],
)
def test_the_import_contracts_hold_and_a_planted_import_breaks_them(
    tmp_path: Path, file: str | None, line: str | None, broken: str | None
) -> None:
    shutil.copytree(PACKAGE, tmp_path / "src" / "lamina")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    if file is not None:
        planted = tmp_path / "src" / "lamina" / file
        planted.write_text(f"{planted.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")

    result = lint_imports(tmp_path)

    verdicts = re.findall(r"^(.*) (KEPT|BROKEN)", result.stdout, flags=re.MULTILINE)
    assert len(verdicts) == 4, result.stdout + result.stderr
    assert (result.returncode == 0) == (broken is None), result.stdout
    if broken is not None:
        assert any(v == "BROKEN" and name.startswith(broken) for name, v in verdicts), verdicts


@pytest.mark.alone
def test_import_lamina_loads_numpy_and_nothing_heavy() -> None:
    code = (
        "import sys, time, numpy\n"
        "before, start = set(sys.modules), time.perf_counter()\n"
        "import lamina\n"
        "print(time.perf_counter() - start, *(set(sys.modules) - before))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(3)
    ]
    loaded = {name.partition(".")[0] for name in runs[0][1:]}
    assert loaded - STANDARD <= {"lamina", "numpy"}
    assert min(float(run[0]) for run in runs) < 0.1


def test_the_engine_knows_no_python_outside_its_bindings() -> None:
    knows = re.compile(r"#\s*include\s*[<\"](Python\.h|nanobind/)")
    files = [*(ROOT / "native").glob("*.cpp"), *(ROOT / "native").glob("*.h")]
    knowing = {path.name for path in files if knows.search(path.read_text(encoding="utf-8"))}
    assert knowing == {"bindings.cpp", "bindings.h", "bindings_buffer.h", "bindings_grouped.cpp"}


def pins(name: str) -> dict[str, str]:
    """Return {package: version} of one lock file, its names normalised."""
    lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    rows = [line.split("==") for line in lines if line and line[0] not in "#-"]
    return {re.sub(r"[-_.]+", "-", package).lower(): version for package, version in rows}


def test_the_lock_pins_every_package_that_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

    def asked(requirements: list[str]) -> set[str]:
        return {re.split(r"[<>=\[ ]", item)[0].lower() for item in requirements}

    build, run, dev = pins("build.txt"), pins("run.txt"), pins("dev.txt")
    assert asked(project["build-system"]["requires"]) <= set(build)
    assert asked(project["project"]["dependencies"]) <= set(run)
    extra = asked(project["project"]["optional-dependencies"]["dev"]) - {"lamina"}
    assert extra <= set(dev)
    assert not {"torchvision", "lpips", "piq", "compressai"} & set(build | run | dev)
    assert dev["torch"] == "2.13.0"
    assert "torch" not in build | run
