"""The engines that are timed: which module runs them, what they need, what they can do."""

from __future__ import annotations

from dataclasses import dataclass

from lamina.bench.workloads import Workload


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
    ours : bool
        Whether it is lamina.
    activations : bool
        Whether it has been told of activations other than relu.
    precision : {"float32", "bfloat16"}
        Of the products of float32 networks.
    """

    module: str
    packages: tuple[str, ...]
    kinds: tuple[str, ...]
    float64: bool = True
    own_python: bool = False
    optional: bool = False
    tolerance: float = 1e-4
    ours: bool = False
    activations: bool = False
    precision: str = "float32"

    def runs(self, workload: Workload) -> bool:
        """Tell whether the engine is meant for the workload."""
        if workload.kind not in self.kinds or not (self.float64 or workload.dtype == "float32"):
            return False
        if workload.n_threads or workload.name.startswith("rows"):
            return self.ours and self.activations
        return self.activations or workload.activation == "relu"


OURS = "lamina"  # what every ratio is relative to
_TORCH = ("torch",)
ENGINES: dict[str, Engine] = {
    OURS: Engine(
        "lamina.bench.with_lamina",
        ("lamina",),
        ("train", "fit", "infer"),
        ours=True,
        activations=True,
    ),
    "lamina bf16": Engine(
        "lamina.bench.with_lamina",
        ("lamina",),
        ("train",),
        float64=False,
        ours=True,
        activations=True,
        precision="bfloat16",
    ),
    "lamina.train": Engine("lamina.bench.with_lamina", ("lamina",), ("train",), ours=True),
    "scikit-learn": Engine(
        "lamina.bench.with_sklearn", ("scikit-learn",), ("train", "fit", "infer")
    ),
    "torch": Engine("lamina.bench.with_torch", _TORCH, ("train", "infer"), activations=True),
    "torch bf16": Engine(
        "lamina.bench.with_torch",
        _TORCH,
        ("train", "infer"),
        float64=False,
        tolerance=0.05,
        activations=True,
        precision="bfloat16",
    ),
    # Seconds to start, and no faster than eager where it was tried: only on request.
    "torch.compile": Engine(
        "lamina.bench.with_torch", _TORCH, ("train", "infer"), optional=True, activations=True
    ),
    "jax": Engine("lamina.bench.with_jax", ("jax",), ("train", "infer"), own_python=True),
    "onnxruntime": Engine(
        "lamina.bench.with_onnxruntime", ("onnx", "onnxruntime"), ("infer",), float64=False
    ),
}
