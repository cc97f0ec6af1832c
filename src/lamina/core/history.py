"""What a training run leaves behind, and what it says between epochs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lamina.core.errors import SpecError

# Why a run ended.
STOPPED = (
    "max_epochs",
    "max_seconds",
    "patience",
    "callback",
    "converged",
    "line_search",
    "interrupted",
    "diverged",
)


@dataclass(frozen=True)
class EpochReport:
    """What a callback is told after each epoch.

    Attributes
    ----------
    epoch : int
        The index of the epoch just completed, from 0.
    max_epochs : int
        How many there will be at most.
    train_loss : float
        The mean over the epoch's batches, each before its step, with the l2 term.
    validation_loss, validation_score : float or None
        On the held-out rows, after the epoch; None without `validation`. Score: accuracy for
        classes, R² for numbers, minus the loss for poisson and pinball: higher is better.
    lr : float
        The learning rate of the last step; NaN for LBFGS, which has none.
    seconds : float
        Since training began.
    is_best : bool
        Whether this epoch has the lowest validation loss so far; False without `validation`.
    member : int
        Which of `train_many`'s networks this is about, from 0.
    """

    epoch: int
    max_epochs: int
    train_loss: float
    validation_loss: float | None
    validation_score: float | None
    lr: float
    seconds: float
    is_best: bool
    member: int = 0


@dataclass(repr=False)
class History:
    """The curves of a run, how to repeat it, and the state that resumes it.

    Attributes
    ----------
    train_loss : list of float
        One number an epoch: the mean over its batches, each before its step, with the l2 term.
    validation_loss, validation_score : list of float
        One number an epoch, empty without `validation`; see `EpochReport`.
    times : list of float
        Seconds from the start to the end of each epoch, resumed runs end to end. Epochs that the
        engine ran in one call share its time evenly.
    best_epoch : int or None
        The index of the epoch whose parameters were kept: ``validation_loss[best_epoch]`` is the
        lowest. None without `validation`, where the last is kept.
    seed : int
        Drawn from `rng`: decides the held-out rows, their order and the dropout masks.
    n_threads : int
    isa : str
        The instruction set; same seed, data, n_threads, isa and precision give the same bits.
    precision : str
        "float32", "float64" or "bfloat16".
    stopped : str
        Why the run ended: "max_epochs", "max_seconds", "patience", "callback" or "interrupted"
        (Ctrl-C). LBFGS: "converged", or "line_search" where no step along its direction lowers
        the loss: tol is out of this precision's reach, or loss and gradient disagree. A member
        of `train_many`: "diverged" too.
    state : dict or None
        Numbers, names and arrays that ``train(…, resume=history)`` continues from; None for LBFGS.

    Notes
    -----
    To repeat a run that time ended, pass ``max_epochs=history.epochs``. Under a schedule, which
    depends on max_epochs, leave that and pass
    ``callbacks=lambda report: report.epoch + 1 == history.epochs``.
    """

    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_score: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    best_epoch: int | None = None
    seed: int = 0
    n_threads: int = 1
    isa: str = ""
    stopped: str = ""
    state: dict[str, Any] | None = None
    precision: str = ""

    @property
    def epochs(self) -> int:
        """Epochs completed, those before a resumption included."""
        return len(self.train_loss)

    def __repr__(self) -> str:
        parts = [f"epochs={self.epochs}"]
        if self.train_loss:
            parts.append(f"train_loss={self.train_loss[-1]:.4g}")
        if self.best_epoch is not None:
            best = self.best_epoch
            parts.append(f"best_epoch={best}")
            parts.append(f"validation_loss={self.validation_loss[best]:.4g}")
            parts.append(f"validation_score={self.validation_score[best]:.4g}")
        if self.times:
            parts.append(f"seconds={self.times[-1]:.3g}")
        return f"History({', '.join(parts)}, stopped={self.stopped!r})"

    def continued(self) -> History:
        """Return a history that begins with this one's epochs."""
        return History(
            list(self.train_loss),
            list(self.validation_loss),
            list(self.validation_score),
            list(self.times),
            self.best_epoch,
            self.seed,
        )


def state_of(resume: object) -> dict[str, Any]:
    """Return the state of a history; a SpecError if it is none or has none."""
    if isinstance(resume, History) and resume.state is not None:
        return resume.state
    got = "one without a state" if isinstance(resume, History) else type(resume).__name__
    raise SpecError(
        f"train: expected resume to be the History of an earlier run, got {got}. "
        "Pass what train returned; runs of LBFGS cannot be resumed, only begun again."
    )


def check_resume(resume: History, expected: dict[str, Any], has_validation: bool) -> dict[str, Any]:
    """Return the state of `resume` if it can continue the run that `expected` describes.

    Raises
    ------
    SpecError
        An item of its state differs, or one has held-out rows and the other has not.
    """
    advice = "Pass the same arguments and data as for the first part of the run."
    state = state_of(resume)
    for name, value in expected.items():
        if state[name] != value:
            raise SpecError(
                f"train: expected {name} = {state[name]!r}, as in the run to be resumed, "
                f"got {value!r}. {advice}"
            )
    if resume.epochs and bool(resume.validation_loss) != has_validation:
        word = "" if resume.validation_loss else "no "
        raise SpecError(
            f"train: expected {word}validation, as in the run to be resumed, "
            f"got {'one' if has_validation else 'none'}. {advice}"
        )
    return state
