"""The program that `make cross` runs on other processors still fits the engine's interface."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which(os.environ.get("CXX", "g++"))


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler by the name in CXX, or g++")
def test_it_compiles():
    command = [COMPILER, "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Inative"]
    done = subprocess.run(
        [*command, "tests/native/check_engine.cpp"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
