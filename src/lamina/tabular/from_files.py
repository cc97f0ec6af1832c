"""FromFiles: what lets the estimators of tables learn from files larger than memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.utils import check_random_state

from lamina.core.engine import default_n_threads, isa
from lamina.core.ensemble import Ensemble
from lamina.core.history import EpochReport, History
from lamina.tabular.fit_report import FitReport
from lamina.tabular.inputs import Inputs
from lamina.tabular.neighbours import Neighbours
from lamina.tabular.recipe import find_recipe
from lamina.tabular.target import Target

if TYPE_CHECKING:
    from lamina.tabular.stream import Streamed, StreamPlan


class FromFiles:
    """Adds `fit_files` to `TabularClassifier` and `TabularRegressor`."""

    preset: str
    max_seconds: float | None
    types: Mapping[str, str] | None
    random_state: Any
    n_threads: int | None
    n_features_in_: int
    feature_names_in_: NDArray[Any]
    inputs_: Inputs
    ensemble_: Ensemble
    background_: NDArray[np.float32]
    neighbours_: Neighbours | None
    target_: Target
    report_: FitReport
    histories_: list[History]
    _stages: dict[str, float]
    _validate_params: Callable[[], None]

    def fit_files(
        self,
        source: str | Path | Sequence[str | Path],
        target: str,
        *,
        drop: Sequence[str] = (),
        max_memory: int | str = "1GiB",
        work_dir: str | Path | None = None,
        resume: bool = False,
        keep_work: bool = False,
    ) -> Self:
        r"""Learn from files that may be larger than memory.

        Rows are read a batch at a time, encoded to disk, and learnt from in chunks drawn at random.
        At most 20,000 of them, or an eighth, are held out from all members: they choose each
        member's best parameters, and are all that the out-of-fold attributes are about, in the
        order of `held_out_`. Made for 100,000 rows and more; fewer do better with `fit`, which
        alone looks up neighbours.

        Parameters
        ----------
        source : str, Path or a sequence of them
            A Parquet, CSV, TSV, JSON lines or Feather file, several, or a folder of them.
        target : str
            The column to predict; rows without a value of it are left out.
        drop : sequence of str
            Columns not to learn from.
        max_memory : int or str, default "1GiB"
            What this may take beyond the interpreter and its libraries: bytes, or text such as
            "512MiB". With less memory chunks are smaller, which can change the result a little.
        work_dir : path, optional
            Where encoded rows (4 bytes a column) and a checkpoint a minute are kept; removed at the
            end. None is a temporary folder, and no resuming.
        resume : bool, default False
            Go on with the fit that `work_dir` has, to the very result that it would have had.
        keep_work : bool, default False
            Leave `work_dir` to the caller, who calls `lamina.tabular.stream.remove_work` when the
            model is saved.

        Returns
        -------
        self

        Raises
        ------
        DataError
            The table cannot be learnt from, the disk is full, or another fit is to be resumed.
        KeyboardInterrupt
            Ctrl-C: `work_dir` has what ``resume=True`` goes on with.

        Examples
        --------
        >>> import lamina, pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "t.csv"
        >>> rows = [f"{i % 7},{'ab'[i % 2]},{i % 7 + 10 * (i % 2)}" for i in range(400)]
        >>> _ = path.write_text("\n".join(["x,k,y", *rows]))
        >>> model = lamina.TabularRegressor("fast", random_state=0).fit_files(path, "y")
        >>> model.predict({"x": [3], "k": ["b"]}).shape
        (1,)
        """
        # What this needs, pyarrow among it, is no concern of other fits
        from lamina.tabular.stream import learn_files, parse_memory, remove_work

        self._validate_params()
        began = time.perf_counter()
        where = f"{type(self).__name__}.fit_files"
        given = self.random_state
        done = learn_files(
            source,
            target,
            self._stream_plan(drop, parse_memory(max_memory, where)),
            find_recipe(self.preset, where),
            seed=int(check_random_state(given).randint(2**31 - 1)),
            work_dir=work_dir,
            resume=resume,
            arguments={
                "preset": self.preset,
                "random_state": int(given) if isinstance(given, Integral) else None,
            },
        )
        self.feature_names_in_ = np.array(done.names, dtype=object)
        self.n_features_in_ = len(done.names)
        self.inputs_, self.ensemble_ = done.inputs, done.ensemble
        self.neighbours_ = None
        self.background_ = done.background
        self.target_ = done.target.described
        self.histories_ = [replace(h, state=None) for h in done.histories]
        self._stages = done.stages
        scores = self._take_streamed(done)
        self.report_ = FitReport(
            n_rows=done.target.n_rows,
            n_members=len(done.histories),
            epochs=tuple(h.epochs for h in done.histories),
            best_epochs=tuple((h.best_epoch or 0) + 1 for h in done.histories),
            stopped=tuple(h.stopped for h in done.histories),
            seed=done.seed,
            n_threads=default_n_threads(self.n_threads),
            isa=isa(),
            notes=done.notes,
            scores=scores,
            seconds=time.perf_counter() - began,
        )
        if work_dir is not None and not keep_work:
            remove_work(work_dir)
        return self

    def _stream_plan(self, drop: Sequence[str], max_memory: int) -> StreamPlan:
        from lamina.tabular.stream import StreamPlan

        return StreamPlan(
            task="classification" if is_classifier(self) else "regression",
            loss=getattr(self, "loss", "squared_error"),
            class_weight=getattr(self, "class_weight", None),
            types=self.types,
            drop=tuple(drop),
            max_memory=max_memory,
            max_seconds=self.max_seconds,
            n_threads=self.n_threads,
            on_epoch=self._told_each_epoch(),
        )

    def _told_each_epoch(self) -> Callable[[EpochReport], Any] | None:
        raise NotImplementedError

    def _take_streamed(self, done: Streamed) -> dict[str, float]:
        """Set what is the estimator's own of a fit from files; return the held-out scores."""
        raise NotImplementedError
