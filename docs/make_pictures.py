"""Run the chapter docs/theory.md, and keep the pictures that its own lines draw.

    python docs/make_pictures.py            # all of it, into docs/pictures
    python docs/make_pictures.py regions    # only the sections that draw a picture so named

The pictures are what the text shows: ``….savefig("regions.png")`` in a Python block, and ``--plot
regions.png`` in a console block. There is no other source of them. ``make docs`` calls this;
tests/test_readme.py runs the same blocks and compares what they print.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parent
CHAPTER = DOCS / "theory.md"
PICTURES = DOCS / "pictures"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
N_COLOURS = 256  # of a picture: a third of the bytes, and no difference to be seen


class Section(NamedTuple):
    """A part of the chapter, whose Python blocks share their variables."""

    title: str
    blocks: list[tuple[str, str]]  # ("pycon" or "console", text)

    @property
    def drawn(self) -> list[str]:
        """The names of the pictures that its blocks write."""
        text = "\n".join(block for _, block in self.blocks)
        return re.findall(r'(?:savefig\("|--plot )([\w-]+\.png)', text)


def sections(text: str) -> list[Section]:
    """Return the sections of a page that hold code which runs, in order."""
    found = []
    for part in re.split(r"^## ", text, flags=re.MULTILINE):
        blocks = re.findall(r"^```(pycon|console)\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
        if blocks:
            found.append(Section(part.partition("\n")[0], blocks))
    return found


def steps(block: str) -> list[tuple[str, str]]:
    """Split a console block into (command, expected output); output may be left out."""
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [(command, wanted) for command, _, wanted in (part.partition("\n") for part in parts)]


def run(section: Section) -> list[str]:
    """Run a section in the working folder; return what went otherwise than it says."""
    globs: dict[str, object] = {"__name__": "__main__"}
    faults = []
    for language, block in section.blocks:
        if language == "pycon":
            test = doctest.DocTestParser().get_doctest(block, globs, section.title, None, None)
            told = io.StringIO()
            runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
            runner.run(test, out=told.write, clear_globs=False)
            globs = test.globs
            faults += [told.getvalue()] if runner.failures else []
            continue
        for command, wanted in steps(block):
            got, code = run_verb(command)
            if code or (
                wanted.strip() and not doctest.OutputChecker().check_output(wanted, got, FLAGS)
            ):
                faults.append(f"$ {command}\nexpected:\n{wanted}\ngot ({code}):\n{got}")
    return faults


def run_verb(command: str) -> tuple[str, int]:
    """Run one ``lamina …`` line in this process; return what it prints and its exit code."""
    from click.testing import CliRunner

    from lamina.cli.main import cli

    name, *arguments = shlex.split(command)
    if name != "lamina":
        raise ValueError(f"console blocks hold lamina commands only, got {command!r}")
    result = CliRunner(env={"COLUMNS": "80", "NO_COLOR": "1"}).invoke(cli, arguments)
    return result.output if result.exit_code else result.stdout, result.exit_code


def keep(drawn: Path, kept: Path) -> None:
    """Write a picture anew with few colours, and without a date or a program's name."""
    from PIL import Image

    with Image.open(drawn) as picture:
        few = picture.convert("RGB").quantize(N_COLOURS, Image.Quantize.MAXCOVERAGE)
        few.save(kept, optimize=True)


def main(only: list[str]) -> int:
    """Run the chapter and keep its pictures; return 1 where the text is not true."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams["savefig.dpi"] = 120
    status = 0
    for section in sections(CHAPTER.read_text(encoding="utf-8")):
        if only and not any(name.removesuffix(".png") in only for name in section.drawn):
            continue
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            (Path(folder) / "examples").symlink_to(DOCS.parent / "examples")
            faults = run(section)
            for name in section.drawn:
                keep(Path(folder) / name, PICTURES / name)
        print(f"{section.title}: {', '.join(section.drawn) or 'no picture'}")  # noqa: T201
        print(*faults, sep="\n", end="")  # noqa: T201
        status |= bool(faults)
    return status


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the same sums on every machine
    PICTURES.mkdir(exist_ok=True)
    sys.exit(main(sys.argv[1:]))
