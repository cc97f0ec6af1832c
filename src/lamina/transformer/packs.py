"""Packed weights: what an inference pass lays out once and keeps until the weights change.

A pack is kept only by a module in evaluation mode, for passes without gradients. It belongs to the
addresses and version counters of the weights it was made from, and is dropped by ``train()``,
``to()`` and ``load_state_dict``. One way of writing leaves no trace: ``p.data.add_(1)`` and its
like keep the address and the counter; call ``drop_pack()`` after it.
"""

from __future__ import annotations

import atexit
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self
from weakref import WeakValueDictionary

from torch import Tensor, nn

from lamina.core.grouped import ExpertPack

# Operators of a compiled graph take numbers and tensors only, so that a slot travels as its number.
_slots: WeakValueDictionary[int, PackSlot] = WeakValueDictionary()
_numbers = itertools.count(1)
NO_SLOT = 0


class PackSlot:
    """A place for one pack; ``number`` finds it again as long as it lives.

    A copy, or what a pickle brings back, is a new and empty one.
    """

    def __init__(self) -> None:
        self.number = next(_numbers)
        # (what it was made from, tensors that keep those addresses taken, the pack)
        self._kept: tuple[Any, list[Tensor], ExpertPack] | None = None
        _slots[self.number] = self

    def __reduce__(self) -> tuple[type[PackSlot], tuple[()]]:
        return PackSlot, ()

    def drop(self) -> None:
        """Forget the pack."""
        self._kept = None

    def get(self, tensors: Sequence[Tensor], engine: Any, make: Callable[[], ExpertPack]) -> Any:
        """Return the pack of these weights for this engine, made now where it is not kept."""
        key = (engine, [(t.data_ptr(), t._version) for t in tensors])
        kept = self._kept  # read once: another thread may write
        if kept is not None and kept[0] == key:
            return kept[2]
        pack = make()
        self._kept = (key, [t.detach() for t in tensors], pack)
        return pack


def find_slot(number: int, tensors: Sequence[Tensor]) -> PackSlot | None:
    """Return the slot of that number, or None where nothing may be kept.

    Tensors made under ``inference_mode`` count no versions: a change could not be seen.
    """
    if number == NO_SLOT or any(t.is_inference() for t in tensors):
        return None
    return _slots.get(number)


@atexit.register
def _drop_all() -> None:
    for slot in list(_slots.values()):
        slot.drop()


class Packed(nn.Module):
    """A module that may keep a pack of its weights; the pack is no part of its state."""

    def __init__(self) -> None:
        super().__init__()
        self._new_slot()

    def _new_slot(self) -> None:
        self._slot = PackSlot()
        self._slot_number = self._slot.number

    def drop_pack(self) -> None:
        """Forget the packed weights: needed after writing to ``parameter.data`` in place only."""
        self._slot.drop()

    def train(self, mode: bool = True) -> Self:
        """Switch training mode, as every module does, and forget the packed weights."""
        self.drop_pack()
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self.drop_pack()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], *args: Any) -> None:
        self.drop_pack()
        super()._load_from_state_dict(state_dict, *args)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_slot"], state["_slot_number"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._new_slot()
