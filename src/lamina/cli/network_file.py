"""Opening a model file that must hold one network."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lamina.core.network import Network


def open_network(path: str, verb: str) -> Network:
    """Load a network, or that of a fitted MLPClassifier or MLPRegressor.

    Raises
    ------
    DataError
        The file holds something else.
    """
    from lamina.bridges.sklearn import from_sklearn
    from lamina.core.errors import DataError
    from lamina.core.network import Network
    from lamina.loading import load

    found = load(path)
    if isinstance(found, Network):
        return found
    if hasattr(found, "coefs_"):
        return from_sklearn(found)
    raise DataError(
        f"{verb}: expected a file with one network, got {path!r}, which holds something "
        f"else: {type(found).__name__}. Save one with net.save(path)."
    )
