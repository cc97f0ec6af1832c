"""The engines that are timed: which module runs them, what they need, what they can do."""

from __future__ import annotations

from dataclasses import dataclass

from timing.workloads import Workload


@dataclass(frozen=True)
class Engine:
    """A way to compute a workload.

    Attributes
    ----------
    module : str
        Has a function of each kind's name, which returns one `Ready` or several to choose from.
    packages : tuple of str
        What must be installed.
    kinds : tuple of str
    float64 : bool
        False: float32 workloads only.
    own_python : bool
        May live in an environment of its own (--jax-python).
    optional : bool
        Timed only when named.
    tolerance : float
        The largest error that a probability may have, from rounding.
    """

    module: str
    packages: tuple[str, ...]
    kinds: tuple[str, ...]
    float64: bool = True
    own_python: bool = False
    optional: bool = False
    tolerance: float = 1e-4

    def runs(self, workload: Workload) -> bool:
        """Tell whether the engine is meant for the workload."""
        return workload.kind in self.kinds and (self.float64 or workload.dtype == "float32")


OURS = "lamina"  # what every ratio is relative to
ENGINES: dict[str, Engine] = {
    OURS: Engine("timing.with_lamina", ("lamina",), ("train", "fit", "infer")),
    "lamina.train": Engine("timing.with_lamina", ("lamina",), ("train",)),
    "scikit-learn": Engine("timing.with_sklearn", ("scikit-learn",), ("train", "fit", "infer")),
    "torch": Engine("timing.with_torch", ("torch",), ("train", "infer")),
    "torch bf16": Engine(
        "timing.with_torch", ("torch",), ("train", "infer"), float64=False, tolerance=0.05
    ),
    # Seconds to start, and no faster than eager where it was tried: only on request.
    "torch.compile": Engine("timing.with_torch", ("torch",), ("train", "infer"), optional=True),
    "jax": Engine("timing.with_jax", ("jax",), ("train", "infer"), own_python=True),
    "onnxruntime": Engine(
        "timing.with_onnxruntime", ("onnx", "onnxruntime"), ("infer",), float64=False
    ),
}
