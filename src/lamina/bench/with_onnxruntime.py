"""onnxruntime: one thread or all, plain call or bound buffers, whichever is fastest."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from lamina.bench.clock import Ready
from lamina.bench.workloads import Workload

OPSET, IR_VERSION = 17, 8


def infer(workload: Workload, engine: str, n_threads: int) -> list[Ready]:  # noqa: ARG001
    """Return the settings worth trying: few rows are faster on one thread, and when bound."""
    x, _ = workload.rows()
    model = _model(workload)
    return [
        make(model, x, workload, threads)
        for threads in sorted({1, n_threads})
        for make in (_plain, _bound)
    ]


def _plain(model: bytes, x: np.ndarray, workload: Workload, n_threads: int) -> Ready:
    session = _session(model, n_threads)
    return Ready(
        lambda: session.run(None, {"x": x})[0],
        lambda y_pred: workload.error(x, y_pred),
        setting=f"{n_threads} thread{'s' * (n_threads > 1)}, run",
    )


def _bound(model: bytes, x: np.ndarray, workload: Workload, n_threads: int) -> Ready:
    session = _session(model, n_threads)
    out = ort.OrtValue.ortvalue_from_numpy(np.empty((len(x), workload.d_out), x.dtype))
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(x))
    binding.bind_ortvalue_output("y", out)
    return Ready(
        lambda: session.run_with_iobinding(binding),
        lambda _: workload.error(x, out.numpy()),
        setting=f"{n_threads} thread{'s' * (n_threads > 1)}, bound buffers",
    )


def _session(model: bytes, n_threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = n_threads
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _model(workload: Workload) -> bytes:
    nodes, constants, h = [], [], "x"
    layers = workload.layers()
    for i, (weight, bias) in enumerate(layers):
        constants += [
            numpy_helper.from_array(np.ascontiguousarray(weight.T), f"weight_{i}"),
            numpy_helper.from_array(bias, f"bias_{i}"),
        ]
        nodes.append(helper.make_node("Gemm", [h, f"weight_{i}", f"bias_{i}"], [f"z_{i}"]))
        last = i == len(layers) - 1
        output = "y" if last else f"h_{i}"
        options = {"axis": 1} if last else {}
        nodes.append(
            helper.make_node("Softmax" if last else "Relu", [f"z_{i}"], [output], **options)
        )
        h = output
    float32 = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", float32, ["n", workload.d_in])],
        [helper.make_tensor_value_info("y", float32, ["n", workload.d_out])],
        constants,
    )
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION).SerializeToString()
