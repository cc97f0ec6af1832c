"""How a running fit shows itself on standard error.

On a terminal: one bar with epoch, loss, validation score and time left. Elsewhere (a log file,
a pipe): a plain line now and then.
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
        What the validation score is called.
    max_seconds : float, optional
        The time limit, which bounds the time left.
    quiet : bool
        Show nothing.
    """

    def __init__(self, score_name: str, max_seconds: float | None, quiet: bool) -> None:
        self.score_name = score_name
        self.max_seconds = max_seconds
        self.quiet = quiet
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last_line = 0.0

    def __enter__(self) -> TrainingProgress:
        if not self.quiet and sys.stderr.isatty():
            self._bar = _bar()
            self._task = self._bar.add_task("epoch 1", total=None, left="", scores="")
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

    def __call__(self, report: EpochReport) -> None:
        """Show where training is."""
        if self.quiet:
            return
        done = report.epoch + 1
        epoch = f"epoch {done}/{report.max_epochs}"
        scores = f"loss {report.train_loss:.4f}"
        if report.validation_score is not None:
            scores += f"  validation {self.score_name} {report.validation_score:.4f}"
        left = f"at most {self._seconds_left(report):.0f} s left"
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task,
                description=epoch,
                completed=done,
                total=report.max_epochs,
                scores=scores,
                left=left,
            )
        elif self._line_is_due(done == report.max_epochs):
            click.echo(f"{epoch}  {scores}  {left}", err=True)

    def _seconds_left(self, report: EpochReport) -> float:
        """Return an upper bound: training may stop earlier, when it no longer improves."""
        done = report.epoch + 1
        by_epochs = report.seconds / done * (report.max_epochs - done)
        if self.max_seconds is None:
            return by_epochs
        return min(by_epochs, max(self.max_seconds - report.seconds, 0.0))

    def _line_is_due(self, last: bool) -> bool:
        now = time.monotonic()
        if not last and now - self._last_line < SECONDS_BETWEEN_LINES:
            return False
        self._last_line = now
        return True


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns: list[Any] = [
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[scores]}"),
        TextColumn("{task.fields[left]}", style="dim"),
    ]
    return Progress(*columns, console=Console(stderr=True), transient=True)
