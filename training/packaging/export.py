"""One ONNX graph out of a trained network, and the same graph with its weights kept in half the bytes.

The exporter is torch's own (torch.export based; it needs the package onnxscript). Weights kept as float16 are cast to
float32 where the graph starts, so that every sum is still made in float32: the file halves, the arithmetic does not
change, and ONNX Runtime folds the casts away when it loads the model.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

OPSET = 18
OUTPUTS = ("scores", "cam", "features")
HALVE_FROM = 1024  # elements: smaller tensors are not worth a node


def export(net: nn.Module, size: int, outputs: Sequence[str] = OUTPUTS) -> onnx.ModelProto:
    """The graph in float32: image (N, 1, size, size) -> what the network returns, named `outputs`, for any N."""
    net = net.eval().to(memory_format=torch.contiguous_format)
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own making
        program = torch.onnx.export(
            net,
            (torch.zeros(2, 1, size, size),),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=list(outputs),
            dynamic_shapes=({0: batch},),
        )
    if program is None:
        raise RuntimeError("torch exported nothing")
    return plain(program.model_proto)


def plain(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the exporter's notes: they hold paths of the machine that ran it and change no number."""
    del model.metadata_props[:]
    model.doc_string = ""
    graph = model.graph
    graph.name, graph.doc_string = "opentriage", ""
    for part in [graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output]:
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    return model


def halve_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose large float32 weights are stored as float16 and cast back to float32 before their first use."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    graph, casts = out.graph, []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or int(np.prod(tensor.dims)) < HALVE_FROM:
            continue
        name = tensor.name
        half = _as_float16(numpy_helper.to_array(tensor), name)
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.f16"))
        casts.append(helper.make_node("Cast", [f"{name}.f16"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(out, full_check=True)
    return out


def _as_float16(weights: NDArray[np.float32], name: str) -> NDArray[np.float16]:
    half = weights.astype(np.float16)
    if not np.isfinite(half).all():
        raise ValueError(f"{name} does not fit into float16")
    return half


def save(model: onnx.ModelProto, path: Path) -> Path:
    """Write one self-contained file."""
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path
