"""Write what examples/geva.py measured into docs/memories.md, from its JSON and nothing else.

::

    python examples/geva.py --text corpus.txt --json benchmarks/results/geva.json
    python benchmarks/memories_report.py
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "geva.json"
PAGE = HERE.parent / "docs" / "memories.md"
START, END = "<!-- geva:start -->\n", "<!-- geva:end -->"


def load_example() -> Any:
    """Return the example as a module."""
    spec = importlib.util.spec_from_file_location("geva", HERE.parent / "examples" / "geva.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    text = load_example().report(found)
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.split(START)[0], page.split(END)[1]
    PAGE.write_text(f"{before}{START}```text\n{text}\n```\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
