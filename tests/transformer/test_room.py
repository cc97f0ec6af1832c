"""The room: its public names, what importing it costs, its page."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lamina import transformer

PUBLIC = [
    "Acceleration",
    "Anatomy",
    "BlockReport",
    "ComputeCurve",
    "FeedForward",
    "GatedFeedForward",
    "MixtureOfExperts",
    "RoleCost",
    "RoutingStatistics",
    "SplitFeedForward",
    "accelerate",
    "anatomy",
    "compute_curve",
    "plot_routing",
    "register_experts",
    "restore",
    "split",
    "upcycle",
]
PAGE = (Path(__file__).parents[2] / "docs" / "transformer.md").read_text(encoding="utf-8")


def test_the_list_of_public_names_is_frozen():
    assert sorted(transformer.__all__) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_exists_and_says_what_it_is(name):
    assert getattr(transformer, name).__doc__
    assert name in dir(transformer)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"'lamina\.transformer' has no attribute 'Attention'"):
        transformer.Attention  # noqa: B018


def python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


def test_importing_the_room_does_not_import_torch():
    code = "import sys; from lamina import transformer as t; dir(t); print('torch' in sys.modules)"
    assert python(code) == "False\n"


def test_a_missing_torch_gets_the_line_that_installs_it():
    code = """
import sys
sys.modules["torch"] = None  # an import of it fails
from lamina import transformer
try:
    transformer.FeedForward
except ImportError as error:
    print(type(error).__name__, error)
"""
    printed = python(code)
    assert printed.startswith("MissingExtraError lamina: expected the package 'torch'")
    assert 'pip install "lamina[torch]"' in printed


def test_nothing_is_left_over_when_the_interpreter_ends():
    code = """
import torch
from lamina.transformer import FeedForward
ffn = FeedForward(8, 16)
y = ffn(torch.zeros(3, 8))  # its graph outlives the interpreter
ffn.eval()
with torch.no_grad():
    ffn(torch.zeros(3, 8))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr == ""


@pytest.mark.parametrize("block", re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S))
def test_a_python_block_of_the_page_runs(block):
    exec(compile(block, "transformer.md", "exec"), {"__name__": "__main__"})
