"""Static int8 quantisation of a package's graph: measured beside the float graphs, not shipped (docs/benchmarks.md)."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper


def in_float32(model: bytes) -> onnx.ModelProto:
    """The same graph with its half-size weights as float32 initialisers, so that the quantiser finds them."""
    proto = onnx.load_from_string(model)
    halves = {tensor.name: tensor for tensor in proto.graph.initializer}
    rest = []
    for node in proto.graph.node:
        if node.op_type == "Cast" and node.input[0] in halves and node.input[0].endswith(".f16"):
            tensor = halves[node.input[0]]
            whole = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(whole, node.output[0]))
        else:
            rest.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(rest)
    return proto


def quantised(model: bytes, calibration: NDArray[np.float32]) -> bytes:
    """QDQ, per channel, the convolutions but the first, ranges from `calibration` (N, 1, H, W)."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches: Iterator[Any] = iter(np.array_split(calibration, max(1, len(calibration) // 8)))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"image": batch}

    with tempfile.TemporaryDirectory() as folder:
        whole, ready, small = (str(Path(folder) / name) for name in ("whole.onnx", "ready.onnx", "small.onnx"))
        onnx.save(in_float32(model), whole)
        quant_pre_process(whole, ready, skip_symbolic_shape=True)
        stem = next(node.name for node in onnx.load(ready).graph.node if node.op_type == "Conv")
        quantize_static(
            ready,
            small,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=[stem],
        )
        return Path(small).read_bytes()
