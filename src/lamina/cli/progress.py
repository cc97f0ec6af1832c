"""How a running fit shows itself on standard error.

All members together. On a terminal: one bar with epoch, loss, score on held-out rows and time left.
Elsewhere (a log file, a pipe): a plain line now and then.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress, TaskID

    from lamina.core.history import EpochReport

SECONDS_BETWEEN_LINES = 2.0


class TrainingProgress:
    """A context manager; call it with each `EpochReport`.

    Parameters
    ----------
    score_name : str
        What the score on held-out rows is called.
    max_seconds : float, optional
        The time limit, which bounds the time left.
    quiet : bool
        Show nothing.
    unit : str
        What an epoch is called.
    """

    def __init__(
        self, score_name: str, max_seconds: float | None, quiet: bool, unit: str = "epoch"
    ) -> None:
        self.score_name = score_name
        self.max_seconds = max_seconds
        self.quiet = quiet
        self.unit = unit
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last_line = 0.0
        self._latest: dict[int, EpochReport] = {}
        self._unsaid = ""

    def __enter__(self) -> TrainingProgress:
        if not self.quiet and sys.stderr.isatty():
            self._bar = new_bar()
            self._task = self._bar.add_task(f"{self.unit} 1", total=None, left="", scores="")
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._unsaid and kind is None:
            click.echo(self._unsaid, err=True)

    def __call__(self, report: EpochReport) -> None:
        """Show where training is."""
        if self.quiet:
            return
        # Members take turns: a round is over when the first of them is told of again
        if self._bar is None and report.member in self._latest:
            self._say_if_due()
        self._latest[report.member] = report
        members = list(self._latest.values())
        done = max(r.epoch for r in members) + 1
        several = f" of {len(members)} members" if len(members) > 1 else ""
        epoch = f"{self.unit} {done}/{report.max_epochs}{several}"
        scores = f"loss {_mean([r.train_loss for r in members]):.4f}"
        held = [r.validation_score for r in members if r.validation_score is not None]
        if held:
            scores += f"  held-out {self.score_name} {_mean(held):.4f}"
        left = f"at most {self._seconds_left(report, done):.0f} s left"
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task,
                description=epoch,
                completed=done,
                total=report.max_epochs,
                scores=scores,
                left=left,
            )
        else:
            self._unsaid = f"{epoch}  {scores}  {left}"

    def _seconds_left(self, report: EpochReport, done: int) -> float:
        """Return an upper bound: training may stop earlier, when it no longer improves."""
        by_epochs = report.seconds / done * (report.max_epochs - done)
        if self.max_seconds is None:
            return by_epochs
        return min(by_epochs, max(self.max_seconds - report.seconds, 0.0))

    def _say_if_due(self) -> None:
        """Print what was not said yet, if the last line is long enough ago."""
        now = time.monotonic()
        if self._unsaid and now - self._last_line >= SECONDS_BETWEEN_LINES:
            click.echo(self._unsaid, err=True)
            self._last_line, self._unsaid = now, ""


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def new_bar() -> Progress:
    """Return a bar on standard error with room for scores and the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns: list[Any] = [
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[scores]}"),
        TextColumn("{task.fields[left]}", style="dim"),
    ]
    return Progress(*columns, console=Console(stderr=True), transient=True)
