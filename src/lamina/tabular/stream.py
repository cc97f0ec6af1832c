"""Fit tables larger than memory: rows are encoded once, to disk, and learnt from in equal chunks.

1. One pass draws a sample, to which the columns' uses and inputs are fitted; levels are counted
   over all rows. One pass over the target alone finds its classes, or centre, spread and range.
2. One pass encodes every row and writes it to a chunk drawn at random. Some rows are held out.
3. A round is one chunk, learnt from by all members; an epoch is a round of each chunk, in an order
   of its own. After each round the held-out rows say which parameters to keep.

DIFF(Bottou 2009, "Curiously fast convergence of some stochastic gradient descent algorithms"): an
epoch shuffles within chunks and the chunks among themselves, not all rows anew; which rows share
a chunk was drawn once.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from lamina.core.checks import is_whole_number
from lamina.core.ensemble import Ensemble
from lamina.core.errors import DataError, DivergenceError, SpecError
from lamina.core.history import EpochReport, History
from lamina.core.many import train_many
from lamina.core.network import Network
from lamina.core.optim import AdamW
from lamina.core.schedules import cosine
from lamina.tabular.batches import Batches
from lamina.tabular.checkpoint import NAME, Checkpoint, Prepared
from lamina.tabular.chunks import X_NAME, Y_NAME, Chunks, Layout
from lamina.tabular.explain import draw_background
from lamina.tabular.frames import from_arrow
from lamina.tabular.inputs import Inputs
from lamina.tabular.kinds import find_uses
from lamina.tabular.recipe import Recipe
from lamina.tabular.sample import draw_sample
from lamina.tabular.streamed_target import StreamedTarget, find_classes, find_numbers
from lamina.tabular.table import list_names, near_names
from lamina.tabular.uses import ColumnUses

Array = NDArray[Any]
Floats = NDArray[np.float64]
Task = Literal["classification", "regression"]

CHECKPOINT_SECONDS = 60.0
LEAST_MEMORY: Final = 128 << 20  # buffers of readers and the engine's own take about half of it
SAMPLE_ROWS: Final = 200_000
MOST_MEMBERS: Final = 4
MOST_HELD: Final = 20_000  # rows: an R2 or accuracy of so many is known to about 0.003
# Numbers of x in a chunk: more would make a round longer than the time between checkpoints.
CHUNK_CELLS: Final = 1 << 23
PREDICTED_ROWS: Final = 1 << 14  # at a time


@dataclass(frozen=True)
class StreamPlan:
    """What a fit from files is asked for.

    Parameters
    ----------
    task : {"classification", "regression"}
    loss : str
        Of a regression: as `TabularRegressor` takes it.
    class_weight : mapping, "balanced" or None
        As `TabularClassifier` takes it.
    types : mapping, optional
        Uses of columns that overrule what is found.
    drop : sequence of str
        Columns not to learn from.
    max_memory : int
        Bytes, beyond the interpreter and its libraries.
    max_seconds : float, optional
        Begin no further round after so long.
    n_threads : int, optional
    on_epoch : callable, optional
        Told after each round of each member.
    """

    task: Task
    loss: str = "squared_error"
    class_weight: Mapping[Any, float] | str | None = None
    types: Mapping[str, str] | None = None
    drop: Sequence[str] = ()
    max_memory: int = 1 << 30
    max_seconds: float | None = None
    n_threads: int | None = None
    on_epoch: Callable[[EpochReport], Any] | None = None


@dataclass(frozen=True, eq=False)
class Streamed:
    """A fit from files, done.

    Parameters
    ----------
    inputs : Inputs
    target : StreamedTarget
    names : tuple of str
        The table's columns besides the target and what was dropped.
    ensemble : Ensemble
    histories : list of History
        One a member; what they call epochs are rounds.
    held_values : (n_held,) float64
        Numbers, or indices of classes, of the rows that no member learnt from.
    held_output : (n_held, d_out) float32
        The members' mean output for them.
    held_weight : (n_held,) float64, optional
        Their weights by ``class_weight``.
    background : (n_background, d_in) float32
        Some encoded rows that were learnt from.
    seed : int
    notes : tuple of str
    stages : dict of str to float
        Seconds of the parts of the fit; of a resumed one, since it was.
    """

    inputs: Inputs
    target: StreamedTarget
    names: tuple[str, ...]
    ensemble: Ensemble
    histories: list[History]
    held_values: Floats
    held_output: NDArray[np.float32]
    held_weight: Floats | None
    background: NDArray[np.float32]
    seed: int
    notes: tuple[str, ...]
    stages: dict[str, float]


def learn_files(
    source: str | Path | Sequence[str | Path],
    target: str,
    plan: StreamPlan,
    recipe: Recipe,
    *,
    seed: int,
    work_dir: str | Path | None = None,
    resume: bool = False,
    arguments: Mapping[str, Any] | None = None,
) -> Streamed:
    """Train members on the rows of files, within ``plan.max_memory``.

    Parameters
    ----------
    source, target
        Files as `read_table` takes them, and the column to predict.
    seed : int
        Of everything drawn. A resumed fit takes the one it began with.
    work_dir : path, optional
        A folder for encoded rows and the checkpoint, made if need be; `remove_work` removes it once
        the result is safe. None is a temporary one, removed however the fit ends.
    resume : bool
        Go on with what `work_dir` has: from the start where the rows were not all encoded yet.
    arguments : mapping, optional
        What else must be the same when the fit is resumed, such as an estimator's parameters.

    Raises
    ------
    DataError
        The table cannot be learnt from, the disk is full, there is nothing to resume, or what
        there is began otherwise.
    KeyboardInterrupt
        Ctrl-C: `work_dir` keeps the last checkpoint.
    """
    if resume and (work_dir is None or not Path(work_dir).is_dir()):
        raise DataError(
            f"fit: expected an unfinished fit to resume, there is no folder {str(work_dir)!r}. "
            "Begin it without resuming."
        )
    began = time.perf_counter()
    batches = Batches(source, n_bytes=plan.max_memory // 64)
    names = input_columns(batches, target, plan.drop)
    batches = batches.select([*names, target])
    signature = _signature(batches, target, plan, arguments or {})
    with _folder(work_dir) as folder:
        checkpoint = _checkpoint(folder, resume, Checkpoint(signature, seed))
        prepared = checkpoint.prepared
        if prepared is None or not Chunks(folder, prepared.layout).is_whole:
            try:
                prepared = _prepare(batches, target, plan, checkpoint.seed, folder)
                checkpoint.prepared, checkpoint.histories = prepared, []
                checkpoint.save(folder)
            except BaseException:  # there is nothing yet that one could go on with
                remove_work(folder)
                raise
        prepared_at = time.perf_counter()
        rounds = _Rounds(folder, checkpoint, prepared, plan, recipe)
        rounds.go()
        stages = {
            "make columns numbers": prepared_at - began,
            "train": time.perf_counter() - prepared_at,
        }
        return Streamed(
            inputs=prepared.inputs,
            target=prepared.target,
            names=names,
            ensemble=Ensemble(rounds.networks),
            histories=checkpoint.histories,
            held_values=rounds.held_values,
            held_output=rounds.held_output(),
            held_weight=rounds.held_weight,
            background=rounds.background(),
            seed=checkpoint.seed,
            notes=prepared.notes,
            stages=stages,
        )


def remove_work(folder: str | Path) -> None:
    """Remove a fit's files from its work folder, and the folder if nothing else is in it."""
    folder = Path(folder)
    for name in (NAME, X_NAME, Y_NAME):  # the checkpoint first: without it the rest is rubbish
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def parse_memory(value: object, where: str) -> int:
    """Return bytes for a whole number or text such as "1GiB", "512 MB"; at least `LEAST_MEMORY`.

    Raises
    ------
    SpecError
        It is neither, or too little.
    """
    n_bytes = 0
    if is_whole_number(value):
        n_bytes = int(value)
    elif isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", value, re.IGNORECASE)
        if match:
            power = " KMGT".index(match[2].upper() or " ")
            n_bytes = int(float(match[1]) * (1024 if match[3] else 1000) ** power)
    if n_bytes >= LEAST_MEMORY:
        return n_bytes
    raise SpecError(
        f"{where}: expected max_memory of at least {LEAST_MEMORY >> 20} MiB, such as '1GiB' or a "
        f"number of bytes, got {value!r:.80}. Give more."
    )


def input_columns(batches: Batches, target: str, drop: Sequence[str]) -> tuple[str, ...]:
    """Return the columns to learn from; `DataError` if there are none, or not those named."""
    for name in (target, *drop):
        if name not in batches.names:
            near = near_names(name, batches.names)
            hint = f"Did you mean {near}?" if near else f"It has {list_names(batches.names)}."
            raise DataError(f"fit: expected a column {name!r}, the table has none. {hint}")
    if target in drop:
        raise DataError(
            f"fit: expected to drop other columns than the target, got {target!r}. Leave it out."
        )
    names = tuple(name for name in batches.names if name != target and name not in drop)
    if not names:
        raise DataError(
            f"fit: expected at least one column to learn from, got the target alone ({target!r}). "
            "Add columns."
        )
    return names


def _signature(
    batches: Batches, target: str, plan: StreamPlan, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what must be the same for a fit to be resumed, in JSON's own types."""
    from lamina import __version__

    files = []
    for file in batches.files:
        status = Path(file).stat()
        files.append([Path(file).name, status.st_size, status.st_mtime_ns])
    weights = plan.class_weight
    return {
        "files": files,
        "target": target,
        "task": plan.task,
        "loss": plan.loss,
        "class_weight": sorted([str(k), float(v)] for k, v in weights.items())
        if isinstance(weights, Mapping)
        else weights,
        "types": None if plan.types is None else sorted([k, v] for k, v in plan.types.items()),
        "drop": sorted(plan.drop),
        "max_memory": plan.max_memory,
        "the version of lamina": __version__,
        **arguments,
    }


@contextmanager
def _folder(work_dir: str | Path | None) -> Iterator[Path]:
    """Give a folder to work in, made if need be; a temporary one is removed afterwards."""
    if work_dir is None:
        with tempfile.TemporaryDirectory(prefix="lamina-") as temporary:
            yield Path(temporary)
        return
    folder = Path(work_dir)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise DataError(
            f"fit: expected to make the work folder {str(folder)!r}, got: {error.strerror}. "
            "Choose another place."
        ) from error
    yield folder


def _checkpoint(folder: Path, resume: bool, new: Checkpoint) -> Checkpoint:
    """Return the checkpoint to go on from: ``new`` where nothing was kept yet."""
    is_there = (folder / NAME).exists()
    if is_there and not resume:
        raise DataError(
            f"fit: expected no unfinished fit in {str(folder)!r}, there is one. "
            "Resume it, or remove the folder to begin again."
        )
    if not is_there:
        return new
    found = Checkpoint.load(folder)
    found.check_signature(new.signature)
    return found


# --- from files to encoded rows ---------------------------------------------------------------


def _prepare(batches: Batches, target: str, plan: StreamPlan, seed: int, folder: Path) -> Prepared:
    """Fit the inputs to a sample, the target to all rows, and encode these."""
    sample = draw_sample(batches, plan.max_memory // 32, SAMPLE_ROWS, _rng(seed, 1))
    if not sample.n_rows:
        raise DataError(f"fit: expected rows in {batches.files[0]!r}, got none. Add rows.")
    uses = find_uses(sample.table, plan.types, target=target)
    own = ColumnUses(tuple(c for c in uses if c.name == target))
    find = find_classes if plan.task == "classification" else find_numbers
    only = batches.select([target])
    found = find(only, own, target, *([] if find is find_classes else [plan.loss]))
    notes = [*sample.table.notes, *uses.notes]
    if sample.table.n_rows < sample.n_rows:
        notes.append(
            f"columns were judged by {sample.table.n_rows:,} of {sample.n_rows:,} rows, drawn at "
            "random."
        )
    if found.n_missing:
        noun = "row" if found.n_missing == 1 else "rows"
        are = "is" if found.n_missing == 1 else "are"
        notes.append(f"{found.n_missing:,} {noun} without a target {are} left out.")
    others = ColumnUses(tuple(c for c in uses if c.name != target), uses.notes)
    prepared = others.apply(sample.table.without(target), "fit")
    inputs = sample.counts.apply(Inputs.fit(prepared, others), sample.n_rows)
    layout = _layout(found.n_rows, len(inputs.cells), plan.max_memory)
    _encode(batches, inputs, found, Chunks(folder, layout), _rng(seed, 2))
    return Prepared(inputs, found, layout, tuple(notes))


def _layout(n_rows: int, d_in: int, max_memory: int) -> Layout:
    """Choose chunks that fit: x, y, weights, indices and the engine's order of rows."""
    most = max_memory // 4 // (4 * d_in + 64)
    most = max(min(most, CHUNK_CELLS // d_in), 1024)
    return Layout.plan(n_rows, min(max(n_rows // 8, 2), MOST_HELD), most, d_in)


def _encode(
    batches: Batches,
    inputs: Inputs,
    target: StreamedTarget,
    chunks: Chunks,
    rng: np.random.Generator,
) -> None:
    """Write x and the target's values of every row that has a target."""
    n_seen = 0
    text = [*inputs.uses.text_columns, *target.uses.text_columns]
    with chunks.writer(rng) as writer:
        for batch in batches.select([*inputs.names, target.name]):
            where = f"fit, from row {n_seen + 1:,} on"
            n_seen += batch.num_rows
            values = target.values(target.column(batch))
            table = from_arrow(batch.drop_columns([target.name]), where, text)
            known = ~np.isnan(values)
            if not known.all():
                table, values = table.take(known), values[known]
            writer.write(inputs.transform(table, where), values)
        writer.finish()


def _rng(seed: int, *part: int) -> np.random.Generator:
    """Return the generator of one part of a fit: the same whether resumed or not."""
    return np.random.default_rng([seed, *part])


# --- training ---------------------------------------------------------------------------------


class _Rounds:
    """The members' training, a chunk at a time, with checkpoints in between."""

    def __init__(
        self,
        folder: Path,
        checkpoint: Checkpoint,
        prepared: Prepared,
        plan: StreamPlan,
        recipe: Recipe,
    ) -> None:
        self.folder, self.checkpoint, self.prepared = folder, checkpoint, prepared
        self.layout, self.target = prepared.layout, prepared.target
        self.chunks = Chunks(folder, self.layout)
        n_train = self.layout.n_chunks * self.layout.chunk_rows
        self.plan, self.recipe = plan, recipe.for_rows(n_train)
        self.n_rounds = self.recipe.epochs(n_train) * self.layout.n_chunks
        self.batch_size = self.recipe.batch_size(n_train)
        self.networks = self._networks()
        # The rows of a chunk first, then those held out, which stay
        n, self.n_front = self.layout.chunk_rows + self.layout.n_held, self.layout.chunk_rows
        self.x = np.empty((n, self.layout.d_in), np.float32)
        self.values = np.empty(n)
        held = slice(self.n_front, None)
        self.chunks.load(self.layout.n_chunks, self.x[held], self.values[held])
        self.saved_at = time.monotonic()

    def _networks(self) -> list[Network]:
        recipe, objective = self.recipe, self.target.head.objective
        rng = _rng(self.checkpoint.seed, 3)
        networks = [
            Network(
                self.layout.d_in,
                recipe.widths,
                objective.d_out,
                activation=recipe.activation,
                output=objective.output,
                dropout=recipe.dropout,
                encoding=self.prepared.inputs.encoding(recipe.n_features),
                rng=rng,
            )
            for _ in range(min(recipe.n_folds, MOST_MEMBERS))
        ]
        for net, history in zip(networks, self.checkpoint.histories, strict=False):
            state = history.state or {}
            best = state["best_theta"]
            net.theta = state["theta"] if best is None else best
        return networks

    @property
    def held_values(self) -> Floats:
        """The held-out rows' values."""
        return self.values[self.n_front :].copy()

    @property
    def held_weight(self) -> Floats | None:
        """The held-out rows' weights, None where all are alike."""
        weights = self._weights(self.held_values)
        return None if weights is None else weights.astype(np.float64)

    def held_output(self) -> NDArray[np.float32]:
        """The members' mean output for the held-out rows."""
        ensemble, x = Ensemble(self.networks), self.x[self.n_front :]
        parts = range(0, len(x), PREDICTED_ROWS)
        return np.concatenate([ensemble(x[i : i + PREDICTED_ROWS]) for i in parts])

    def background(self) -> NDArray[np.float32]:
        """Some rows of the first chunk."""
        front = slice(self.n_front)
        self.chunks.load(0, self.x[front], self.values[front])
        weights = self._weights(self.values[front])
        of_front = None if weights is None else weights.astype(np.float64)
        return draw_background(self.x[front], of_front, self.checkpoint.seed)

    def go(self) -> None:
        """Train to the end; on Ctrl-C leave a checkpoint."""
        began = time.perf_counter()
        try:
            while live := self._live():
                done = max(self.checkpoint.histories[i].epochs for i in live) if self._begun else 0
                if self._is_time_up(began) and done:
                    for i in live:
                        self.checkpoint.histories[i].stopped = "max_seconds"
                    break
                self._round(done, live)
                if time.monotonic() - self.saved_at >= CHECKPOINT_SECONDS:
                    self._save()
        except KeyboardInterrupt:
            self._save()
            raise
        self._save()

    @property
    def _begun(self) -> bool:
        return bool(self.checkpoint.histories)

    def _live(self) -> list[int]:
        """Return the members that are to go on."""
        if not self._begun:
            return list(range(len(self.networks)))
        histories = enumerate(self.checkpoint.histories)
        return [i for i, history in histories if history.stopped == "callback"]

    def _is_time_up(self, began: float) -> bool:
        limit = self.plan.max_seconds
        return limit is not None and time.perf_counter() - began >= limit

    def _save(self) -> None:
        self.checkpoint.save(self.folder)
        self.saved_at = time.monotonic()

    def _round(self, number: int, live: list[int]) -> None:
        """Let the live members learn from the chunk whose turn it is."""
        recipe, n_chunks = self.recipe, self.layout.n_chunks
        epoch, place = divmod(number, n_chunks)
        chunk = int(_rng(self.checkpoint.seed, 4, epoch).permutation(n_chunks)[place])
        self.chunks.load(chunk, self.x[: self.n_front], self.values[: self.n_front])
        rows = np.arange(self.n_front, dtype=np.int32)

        def after(report: EpochReport) -> bool:
            if self.plan.on_epoch is not None:
                self.plan.on_epoch(replace(report, member=live[report.member]))
            return True

        before = self.checkpoint.histories
        try:
            histories = train_many(
                [self.networks[i] for i in live],
                self.x,
                self.target.encode(self.values),
                loss=self.target.head.objective.loss,
                optimizer=AdamW(
                    lr=cosine(recipe.lr, warmup=0.05), weight_decay=recipe.weight_decay
                ),
                batch_size=self.batch_size,
                max_epochs=self.n_rounds,
                rows=[rows] * len(live),
                validation="rest",
                patience=recipe.patience * n_chunks,
                sample_weight=self._weights(self.values),
                rng=_rng(self.checkpoint.seed, 5),
                n_threads=self.plan.n_threads,
                callbacks=after,
                resume=[before[i] for i in live] if before else None,
            )
        except DivergenceError as error:
            raise DataError(
                "fit: expected finite losses, all members diverged. Check the target for extreme "
                "values."
            ) from error
        after_all = list(before) if before else histories
        for i, history in zip(live, histories, strict=True):
            after_all[i] = history
        self.checkpoint.histories = after_all

    def _weights(self, values: Floats) -> NDArray[np.float32] | None:
        """Return the weights of rows of these values by their classes, None where all are alike."""
        wish, classes, counts = self.plan.class_weight, self.target.classes, self.target.counts
        if wish is None or classes is None or counts is None:
            return None
        if isinstance(wish, Mapping):
            each = np.array([float(wish.get(label, 1.0)) for label in classes.tolist()])
        else:  # "balanced", as scikit-learn has it
            each = counts.sum() / (len(counts) * counts)
        each = each / np.average(each, weights=counts)
        return np.asarray(each[values.astype(np.int64)], np.float32)
