"""Every example that a reader may copy is run: README's, docs/theory.md's, the docstrings'."""

from __future__ import annotations

import doctest
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from docs import make_pictures as chapter

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
README = (ROOT / "README.md").read_text(encoding="utf-8")
THEORY = chapter.CHAPTER.read_text(encoding="utf-8")
MODULES = sorted(
    ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")
    for path in SRC.rglob("*.py")
    if path.stem not in ("_native", "__main__") and not path.stem.startswith("with_")  # peers
)


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced code blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def run(command: str, wanted: str, cwd: Path) -> None:
    """Run one `lamina ...` line and compare what it prints, where README says what that is."""
    name, *arguments = shlex.split(command)
    assert name == "lamina", f"README's console blocks hold lamina commands only, got {command!r}"
    script = Path(sys.executable).with_name(name)
    env = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}
    result = subprocess.run(
        [script, *arguments], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    if wanted.strip():
        assert doctest.OutputChecker().check_output(wanted, result.stdout, FLAGS), result.stdout


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working folder in which examples/ is found as in a clone."""
    (tmp_path / "examples").symlink_to(ROOT / "examples", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Pages whose ```python blocks stand on those before them; the chapter on theory has its own check.
PAGES = sorted(
    page.name
    for page in (ROOT / "docs").glob("*.md")
    if page != chapter.CHAPTER and blocks(page.read_text(encoding="utf-8"), "python")
)


@pytest.mark.parametrize("page", PAGES)
def test_the_python_blocks_of_a_page_run(place: Path, page: str) -> None:
    known = {"__name__": "__main__"}
    for block in blocks((ROOT / "docs" / page).read_text(encoding="utf-8"), "python"):
        exec(compile(block, page, "exec"), known)


@pytest.mark.parametrize("block", blocks(README, "python"))
def test_a_python_block_of_readme_runs(place: Path, block: str) -> None:
    exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})


def test_the_console_blocks_of_readme_print_what_they_say(place: Path) -> None:
    lines = [step for block in blocks(README, "console") for step in chapter.steps(block)]
    assert lines
    for command, wanted in lines:
        run(command, wanted, place)


def test_a_wrong_output_or_a_failing_command_is_noticed(place: Path) -> None:
    with pytest.raises(AssertionError):
        run("lamina --version", "lamina, version 0.0.0-never\n", place)
    with pytest.raises(AssertionError):
        run("lamina no-such-verb", "", place)


def test_the_two_front_doors_come_first_in_readme() -> None:
    first = blocks(README, "sh")[0]
    assert [line.split("#")[0].strip() for line in first.splitlines()] == ["make demo", "make test"]


@pytest.mark.parametrize("section", chapter.sections(THEORY), ids=lambda section: section.title)
def test_a_section_of_the_theory_prints_what_it_says(
    place: Path, monkeypatch: pytest.MonkeyPatch, section: chapter.Section
) -> None:
    from matplotlib.figure import Figure

    drawn = []  # figures are made; painting them takes longest, and make docs does it
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: drawn.append(path))
    assert chapter.run(section) == []
    assert len(drawn) == len(section.drawn)


def test_the_theory_shows_the_pictures_that_it_draws() -> None:
    drawn = {name for section in chapter.sections(THEORY) for name in section.drawn}
    assert drawn == set(re.findall(r"\]\(pictures/([^)]+)\)", THEORY))
    assert drawn == {path.name for path in chapter.PICTURES.iterdir()}


@pytest.mark.parametrize(
    ("language", "block"),
    [("pycon", ">>> 1 + 1\n3\n"), ("console", "$ lamina --version\nnever\n"),
     ("console", "$ lamina prove circuit 'a |'\n")],
)  # fmt: skip
def test_a_wrong_answer_in_the_theory_is_noticed(place: Path, language: str, block: str) -> None:
    assert len(chapter.run(chapter.Section("", [(language, block)]))) == 1


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_docstrings_of_a_module_run(place: Path, name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module, optionflags=FLAGS).failed == 0


def test_the_docstrings_hold_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [t for m in MODULES for t in finder.find(importlib.import_module(m)) if t.examples]
    assert len(found) >= 10
