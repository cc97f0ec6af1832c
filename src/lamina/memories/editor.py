"""Changes what a model's memories say, one edit at a time, each of which can be undone."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from lamina.core.errors import DataError, ShapeError, SpecError, require_extra
from lamina.memories.edit_report import EditReport, Fact, measure_fact
from lamina.memories.edits import Edit, Kind, apply, matrix, take_back
from lamina.memories.live_model import LiveModel, check_tokenizer
from lamina.memories.patch_file import read_patch, write_patch
from lamina.memories.rome import RomeSettings, rank_one


class Editor:
    """Edits a live model's feed-forward values in place; every edit can be listed and undone.

    Parameters
    ----------
    model : transformers model
        Plain or gated feed-forward layers, on the CPU.
    tokenizer : fast tokenizer, optional
        Needed by `replace`, `insert_fact` and `report`.

    Attributes
    ----------
    edits : tuple of Edit
        Those in force, oldest first.

    Raises
    ------
    SpecError, DataError
        A model without feed-forward layers that can be read, or a tokenizer that does not match.
    """

    def __init__(self, model: Any, tokenizer: Any = None) -> None:
        require_extra("transformers", "torch")
        self.live = LiveModel.find(model, "memories.Editor")
        if tokenizer is not None:
            check_tokenizer(model, tokenizer, "memories.Editor")
        self.model, self.tokenizer = model, tokenizer
        self._origin = self.live.fingerprint()
        self._done: list[tuple[Edit, Any]] = []

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The edits in force, oldest first."""
        return tuple(edit for edit, _ in self._done)

    @property
    def fact_layer(self) -> int:
        """Where `insert_fact` writes by default: early, where subjects are looked up."""
        return len(self.live.blocks) // 6

    # --- values ----------------------------------------------------------------------------------

    def set(self, layer: int, neuron: int, value: npt.ArrayLike) -> Edit:
        """Give a memory another value, (d_model,)."""
        where = "Editor.set"
        width = self._check(layer, neuron, where).shape[0]
        array = np.asarray(value, dtype=np.float64)
        if array.shape != (width,):
            raise ShapeError(
                f"{where}: expected a value of {width} numbers, got shape {array.shape}. Pass one "
                "of the model's width."
            )
        if not np.isfinite(array).all():
            raise DataError(
                f"{where}: expected finite numbers, got NaN or infinity. Mend the value."
            )
        return self._change("set", layer, neuron, array, f"set the value of {layer}:{neuron}")

    def boost(self, layer: int, neuron: int, factor: float) -> Edit:
        """Multiply a memory's value by a factor."""
        where = "Editor.boost"
        old = self._check(layer, neuron, where)[:, neuron]
        if not math.isfinite(factor):
            raise DataError(f"{where}: expected a finite factor, got {factor}. Choose another.")
        text = f"multiply the value of {layer}:{neuron} by {factor:g}"
        return self._change("boost", layer, neuron, old.detach().double().numpy() * factor, text)

    def silence(self, layer: int, neuron: int) -> Edit:
        """Set a memory's value to 0: whatever makes it fire, it adds nothing."""
        width = self._check(layer, neuron, "Editor.silence").shape[0]
        return self._change("silence", layer, neuron, np.zeros(width), f"silence {layer}:{neuron}")

    def replace(self, layer: int, neuron: int, token: str, strength: float = 1.0) -> Edit:
        """Let a memory promote a token: its value becomes the direction that raises its logit most.

        Parameters
        ----------
        layer, neuron : int
        token : str
            Its first token counts, with the space that it is written with.
        strength : float
            The new value's length, in lengths of the old one; negative for a memory whose
            coefficients are negative.
        """
        where = "Editor.replace"
        old = self._check(layer, neuron, where)[:, neuron].detach().double().numpy()
        number = self._tokens(token, where)[0]
        if self.live.head is None:
            raise SpecError(
                f"{where}: expected a model with an unembedding, got {type(self.model).__name__}. "
                "Load it with its language model's head."
            )
        rows = self.live.head.weight.detach()
        direction = (rows[number].double() - rows.double().mean(0)).numpy()
        gain = getattr(self.live.norm, "weight", None)
        if gain is not None:
            direction = direction * gain.detach().double().numpy()
        length = float(np.linalg.norm(old)) or 1.0
        value = strength * length * direction / max(float(np.linalg.norm(direction)), 1e-30)
        text = f"let {layer}:{neuron} promote {self.tokenizer.decode([number])!r}"
        return self._change("replace", layer, neuron, value, text)

    # --- facts -----------------------------------------------------------------------------------

    def insert_fact(
        self,
        prompt: str,
        subject: str,
        answer: str,
        *,
        layer: int | None = None,
        covariance: npt.ArrayLike | None = None,
        settings: RomeSettings | None = None,
    ) -> Edit:
        """Insert a fact by a change of rank one to a layer's second matrix (ROME).

        The key is what the matrix reads at the subject's last token, averaged over prefixes. The
        value is found by gradient descent: written there, it makes the model answer as asked,
        while "{subject} is a" goes on as before. The matrix is changed so that the key gives the
        value, and other keys, as `covariance` knows them, are disturbed least.

        Parameters
        ----------
        prompt : str
            Ends where the answer begins, such as "The capital of France is".
        subject : str
            A part of the prompt.
        answer : str
        layer : int, optional
            By default `fact_layer`, the one a sixth up the stack.
        covariance : (d_ff, d_ff) array, optional
            Of the layer's keys, from `key_covariance`; the unit matrix by default, which disturbs
            other facts more.
        settings : RomeSettings, optional

        Returns
        -------
        Edit

        Raises
        ------
        DataError
            A subject that is not in the prompt, or a text without a token.
        SpecError, ShapeError
            No such layer, or a covariance of another size.

        References
        ----------
        Meng et al. 2022, "Locating and editing factual associations in GPT", arXiv:2202.05262.
        """
        where = "Editor.insert_fact"
        chosen = self.fact_layer if layer is None else layer
        self._check(chosen, 0, where)
        self._tokens(answer, where)
        u, v = rank_one(
            self.live,
            self.tokenizer,
            prompt,
            subject,
            answer,
            chosen,
            covariance,
            settings or RomeSettings(),
            where,
        )
        text = f"insert into layer {chosen}: {prompt!r} -> {answer!r}, subject {subject!r}"
        return self._do(Edit(self._number(), "fact", chosen, None, text, (u, v)))

    def report(self, fact: Fact, texts: Iterable[str] = ()) -> EditReport:
        """Compare the model with what it was before its edits, on a fact and on texts.

        Parameters
        ----------
        fact : Fact
            What was inserted, with paraphrases of it, and neighbours that should stay.
        texts : iterable of str
            For the perplexity.
        """
        where = "Editor.report"
        for text in (fact.answer, *(answer for _, answer in fact.neighbours)):
            self._tokens(text, where)
        kept = list(texts)
        after = measure_fact(self.model, self.tokenizer, fact, kept)
        with self._unedited():
            before = measure_fact(self.model, self.tokenizer, fact, kept)
        return EditReport(fact, before, after)

    # --- undo, and files -------------------------------------------------------------------------

    def undo(self) -> Edit:
        """Take the last edit back, to the bit, and return it."""
        if not self._done:
            raise SpecError("Editor.undo: expected an edit to undo, got none. Make one first.")
        edit, before = self._done.pop()
        take_back(self.live, edit, before)
        return edit

    def undo_all(self) -> None:
        """Take all edits back: every weight is what it was, to the bit."""
        while self._done:
            self.undo()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the edits as a patch, for `apply_patch` on a model of the same weights.

        Raises
        ------
        ModelFileError
            The path cannot be written.
        """
        write_patch(path, self.edits, self._origin, self.live.fingerprint(), "Editor.save")

    def load(self, path: str | os.PathLike[str], where: str = "Editor.load") -> None:
        """Make the edits of a patch, on the model that it was saved of; all or none."""
        patch = read_patch(path, self.live, where)
        found = self.live.fingerprint()
        if found != patch.before:
            raise DataError(
                f"{where}: expected the model with fingerprint {patch.before}, on which "
                f"{os.fspath(path)!r} was made, got {found}. Load the model's own weights again."
            )
        n_before = len(self._done)
        for edit in patch.edits:
            self._do(
                Edit(self._number(), edit.kind, edit.layer, edit.neuron, edit.text, edit.vectors)
            )
        if (found := self.live.fingerprint()) != patch.after:
            while len(self._done) > n_before:
                self.undo()
            raise DataError(
                f"{where}: expected the edits of {os.fspath(path)!r} to make {patch.after}, got "
                f"{found}; they were undone. Save the patch again with this version."
            )

    # --- within ----------------------------------------------------------------------------------

    @contextmanager
    def _unedited(self) -> Iterator[None]:
        """Lend the model as it was before its edits."""
        edits = self.edits
        self.undo_all()
        try:
            yield
        finally:
            for edit in edits:
                self._do(edit)

    def _change(
        self, kind: Kind, layer: int, neuron: int, value: npt.NDArray[np.float64], text: str
    ) -> Edit:
        import torch

        vector = torch.from_numpy(np.ascontiguousarray(value)).to(matrix(self.live, layer).dtype)
        return self._do(Edit(self._number(), kind, layer, neuron, text, (vector,)))

    def _do(self, edit: Edit) -> Edit:
        self._done.append((edit, apply(self.live, edit)))
        return edit

    def _number(self) -> int:
        return len(self._done) + 1

    def _check(self, layer: int, neuron: int, where: str) -> Any:
        """Return the layer's matrix, or refuse a layer or neuron that is not there."""
        blocks = self.live.blocks
        if not 0 <= layer < len(blocks) or not 0 <= neuron < blocks[layer].d_ff:
            width = blocks[min(max(layer, 0), len(blocks) - 1)].d_ff
            raise SpecError(
                f"{where}: expected a layer below {len(blocks)} and a neuron below {width}, got "
                f"layer {layer}, neuron {neuron}. Count from 0."
            )
        return matrix(self.live, layer)

    def _tokens(self, text: str, where: str) -> Sequence[int]:
        if self.tokenizer is None:
            raise SpecError(
                f"{where}: expected an editor with a tokenizer, got none. Make it with "
                "Editor(model, tokenizer)."
            )
        found: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not text.strip() or not found:
            raise DataError(f"{where}: expected text with a token, got {text!r}. Write some.")
        return found


def apply_patch(model: Any, path: str | os.PathLike[str], tokenizer: Any = None) -> Editor:
    """Make the edits of a patch on a fresh model of the same weights.

    Parameters
    ----------
    model : transformers model
    path : path-like
        What `Editor.save` wrote.
    tokenizer : fast tokenizer, optional
        For further edits.

    Returns
    -------
    Editor
        With the patch's edits, which can be undone.

    Raises
    ------
    ModelFileError
        No such file, or one that is damaged.
    DataError
        A patch of another model: both fingerprints are shown.
    """
    editor = Editor(model, tokenizer)
    editor.load(path, "memories.apply_patch")
    return editor
