"""A field taken apart for a model file, and put together again; nothing in a file is trusted.

The specification is ``{"preset", "network", "report", "signal"}``; ``signal`` is the kind's own.
The one array is theta, in the signal's units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lamina.core import modelfile
from lamina.core.checks import check_count, check_number
from lamina.core.errors import SpecError
from lamina.core.network import Network
from lamina.core.spec import NetworkSpec
from lamina.fields.fit import FieldReport

Array = npt.NDArray[Any]

_KEYS: Final = {"preset", "network", "report", "signal"}
_COUNTS: Final = ("n_params", "n_values", "n_steps", "batch_size", "seed", "n_threads")
_TEXTS: Final = ("isa", "stopped")


def parts(
    network: Network, report: FieldReport, preset: str, meta: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the specification and arrays of a field."""
    spec = {
        "preset": preset,
        "network": network.spec.to_json(),
        "report": report_parts(report),
        "signal": meta,
    }
    return spec, {"theta": network.theta}


def report_parts(report: FieldReport) -> dict[str, Any]:
    """Return a report as JSON can hold it, without its learning rates."""
    told: dict[str, Any] = {}
    for each in fields(report):
        if each.name != "learning_rates":
            told[each.name] = getattr(report, each.name)
    # JSON has no infinity: a field without any error
    told["psnr"] = report.psnr if np.isfinite(report.psnr) else None
    return told


def from_parts(
    spec: Mapping[str, Any], arrays: Mapping[str, Array], where: str
) -> tuple[str, Network, FieldReport, dict[str, Any]]:
    """Return preset, network, report and the kind's own part.

    Raises
    ------
    SpecError, ShapeError, DataError
        A part is missing or not as `parts` makes it.
    """
    if set(spec) != _KEYS or not isinstance(spec["signal"], dict):
        raise SpecError(f"{where}: expected the parts {sorted(_KEYS)}, got {sorted(spec)[:8]}.")
    network_spec = NetworkSpec.from_json(spec["network"])
    theta = modelfile.theta_alone(arrays, network_spec.dtype, where)
    network = Network.from_spec(network_spec, theta)
    return str(spec["preset"]), network, report_from(spec["report"], where), spec["signal"]


def report_from(told: Any, where: str) -> FieldReport:
    """Return what `report_parts` told; nothing in it is trusted."""
    names = {each.name for each in fields(FieldReport)} - {"learning_rates"}
    if not isinstance(told, dict) or set(told) != names:
        raise SpecError(f"{where}: expected a report of {sorted(names)}, got another.")
    counts: dict[str, Any] = {name: check_count(told[name], name, where, 0) for name in _COUNTS}
    for name in _TEXTS:
        if not isinstance(told[name], str) or len(told[name]) > 40:
            raise SpecError(f"{where}: expected {name} as a short text, got {told[name]!r:.60}.")
    psnr = np.inf if told["psnr"] is None else check_number(told["psnr"], "psnr", where)
    seconds = check_number(told["seconds"], "seconds", where, 0.0)
    texts = {name: told[name] for name in _TEXTS}
    return FieldReport(psnr=psnr, seconds=seconds, learning_rates=np.empty(0), **counts, **texts)


def check_keys(meta: Mapping[str, Any], names: set[str], where: str) -> None:
    """Raise `SpecError` unless a file's part has these names and no others."""
    if set(meta) != names:
        raise SpecError(f"{where}: expected {sorted(names)}, got {sorted(meta)[:8]}.")
