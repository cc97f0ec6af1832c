"""Groups of permutations of pixels, and what they make of a pattern."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.checks import is_whole_number, shape_of
from lamina.core.errors import DataError, ShapeError, SpecError
from lamina.theory.exact import as_points

Permutation = tuple[int, ...]
Group = str | Sequence[Sequence[int]]

NAMES = ("cyclic", "reflection", "dihedral", "permutations")
MOST_IMAGES = 20_000


def orbit(pattern: object, group: Group) -> NDArray[Any]:
    """Return every image of a pattern under a group, the pattern itself first.

    Parameters
    ----------
    pattern : array-like (n,) or (height, width)
        Finite numbers; Fractions and Decimals stay exact.
    group : {"cyclic", "reflection", "dihedral", "permutations"} or list of permutations
        cyclic: shifts with wrap-around, in both directions of a 2-D pattern. reflection: mirror
        images, of both axes. dihedral: of a 1-D pattern shifts and mirror images, of a square the
        four rotations and their mirror images. permutations: every order of the pixels. A list
        holds permutations p of 0 … n-1 (of the flattened pattern), each making
        ``image[i] = pattern[p[i]]``; all their products are meant, too.

    Returns
    -------
    array (n_images, *pattern.shape)
        Each image once, in the dtype of the pattern: image k of a 1-D cyclic orbit is the pattern
        shifted by k to the right.

    Raises
    ------
    SpecError
        The group is unknown, a permutation is none, or there are more than 20,000 images.
    ShapeError, DataError
        The pattern is not 1-D or 2-D, is empty, or holds something else than finite numbers.

    Examples
    --------
    >>> from lamina import theory
    >>> theory.orbit([1, 1, 0], "cyclic").tolist()
    [[1, 1, 0], [0, 1, 1], [1, 0, 1]]
    >>> len(theory.orbit([1, 0, 1, 0], "cyclic"))  # it has a period
    2
    """
    values = as_pattern(pattern, "orbit")
    generators = generators_of(group, values.shape, "orbit")
    flat = values.ravel()
    images = {tuple(flat.tolist()): flat}
    waiting = [flat]
    for image in waiting:  # grows while it is read
        for p in generators:
            new = image[list(p)]
            key = tuple(new.tolist())
            if key in images:
                continue
            if len(images) >= MOST_IMAGES:
                raise SpecError(
                    f"orbit: expected at most {MOST_IMAGES:,} images, got more. "
                    "Use a smaller pattern or a smaller group."
                )
            images[key] = new
            waiting.append(new)
    return np.array(waiting, dtype=values.dtype).reshape(-1, *values.shape)


def as_pattern(pattern: object, where: str, name: str = "pattern") -> NDArray[Any]:
    """Return a pattern as an array of finite numbers of one or two dimensions."""
    array = np.array(pattern)
    if array.ndim not in (1, 2) or array.size == 0:
        raise ShapeError(
            f"{where}: expected {name} of shape (n,) or (height, width), got {shape_of(pattern)}. "
            "Pass one pattern of one channel."
        )
    if array.dtype.kind not in "fiubO":
        raise DataError(
            f"{where}: expected {name} of numbers, got dtype {array.dtype}. Convert it first."
        )
    if array.dtype.kind == "b":
        array = array.astype(np.int64)
    as_points(array.reshape(1, -1), name, where)  # refuses what is no finite number
    return array


def generators_of(group: Group, shape: tuple[int, ...], where: str) -> list[Permutation]:
    """Return permutations whose products are the group; `SpecError` if it is unknown."""
    n = int(np.prod(shape))
    places = np.arange(n).reshape(shape)
    if not isinstance(group, str):
        return [_permutation(p, n, where) for p in _listed(group, where)]
    if group == "cyclic":
        found = [np.roll(places, 1, axis) for axis in range(places.ndim)]
    elif group == "reflection":
        found = [np.flip(places, axis) for axis in range(places.ndim)]
    elif group == "dihedral" and places.ndim == 1:
        found = [np.roll(places, 1), np.flip(places)]
    elif group == "dihedral":
        if shape[0] != shape[1]:
            raise SpecError(
                f"{where}: expected a square pattern for the group 'dihedral', got {shape}. "
                "Use 'reflection', or pad the pattern."
            )
        found = [np.rot90(places), np.flip(places, 1)]
    elif group == "permutations":
        swap = places.ravel().copy()
        swap[:2] = swap[:2][::-1]
        found = [np.roll(places.ravel(), 1), swap]  # the two make every order
    else:
        raise SpecError(
            f"{where}: expected group to be one of {', '.join(NAMES)} or a list of permutations, "
            f"got {group!r}. Use one of these."
        )
    return [tuple(p.ravel().tolist()) for p in found]


def _listed(group: object, where: str) -> list[Any]:
    try:
        found: list[Any] = list(group)  # type: ignore[call-overload]
    except TypeError:
        raise SpecError(
            f"{where}: expected group to be one of {', '.join(NAMES)} or a list of permutations, "
            f"got {group!r}. Use one of these."
        ) from None
    return found


def _permutation(p: Any, n: int, where: str) -> Permutation:
    try:
        found = list(p)
    except TypeError:
        found = [p]
    if not all(is_whole_number(i) for i in found) or sorted(found) != list(range(n)):
        raise SpecError(
            f"{where}: expected every permutation to hold 0 to {n - 1} once each, got {p!r}. "
            f"The pattern has {n} pixels."
        )
    return tuple(int(i) for i in found)
