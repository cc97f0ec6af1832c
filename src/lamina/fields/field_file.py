"""A field taken apart for a model file, and put together again; nothing in a file is trusted.

The specification is ``{"preset", "network", "report", "signal"}``; ``signal`` is the kind's own.
The one array is theta, in the signal's units; where weights are quantised, their stream instead,
and ``"coding"`` says how it is read (`quantised`).
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
from lamina.fields.quantised import Quantised, tensors

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


def with_coding(
    spec: dict[str, Any],
    arrays: dict[str, Array],
    networks: Mapping[str, Network],
    coding: Quantised | None,
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return parts with the networks' thetas as a stream, where `coding` is what they are.

    Parameters
    ----------
    spec, arrays
        The parts.
    networks : mapping
        An array's name to the network whose theta it is, in the coding's order.
    coding : Quantised or None
    """
    if coding is None:
        return spec, arrays
    places = tensors(*(network.spec for network in networks.values()))
    theta = np.concatenate([network.theta for network in networks.values()])
    if not np.array_equal(coding.theta(places), theta):
        return spec, arrays  # set by hand since: nothing may be lost
    told, stream = coding.to_parts(places)
    others = {name: array for name, array in arrays.items() if name not in networks}
    return {**spec, "coding": told}, {**others, "stream": stream}


def without_coding(
    spec: Mapping[str, Any],
    arrays: Mapping[str, Array],
    where: str,
    names: Mapping[str, str] | None = None,
) -> tuple[Mapping[str, Any], Mapping[str, Array], Quantised | None]:
    """Return parts with thetas in place of a stream, and what the stream held; the inverse.

    Parameters
    ----------
    spec, arrays
        The parts.
    where : str
        The start of error sentences.
    names : mapping, optional
        Arrays of theta to their networks in the specification; one, theta of the network, if None.

    Raises
    ------
    SpecError, DataError
        The coding is not as `with_coding` makes it.
    """
    if "coding" not in spec:
        return spec, arrays, None
    names = {"theta": "network"} if names is None else names
    plain = {name: part for name, part in spec.items() if name != "coding"}
    if "stream" not in arrays or not names.keys().isdisjoint(arrays):
        raise SpecError(f"{where}: expected coded weights as a stream, got {sorted(arrays)[:4]}.")
    others = {name: array for name, array in arrays.items() if name != "stream"}
    stream = {name: array for name, array in arrays.items() if name == "stream"}
    specs = [NetworkSpec.from_json(spec[part]) for part in names.values()]
    places = tensors(*specs)
    coding = Quantised.from_parts(spec["coding"], stream, places, where)
    theta, begin = coding.theta(places), 0
    for name, network_spec in zip(names, specs, strict=True):
        end = begin + network_spec.n_params
        others[name] = theta[begin:end].astype(network_spec.dtype)
        begin = end
    return plain, others, coding


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
