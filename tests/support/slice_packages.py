"""A tiny slice model: bright pixels are marked, and a slice with a bright patch scores high. Nothing medical."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.support.packages import PASSES, SIDE, write_package

PATCH = 8
NEOPLASM = {"value": "108369006", "scheme": "SCT", "meaning": "Neoplasm"}
BRAIN = {"value": "12738006", "scheme": "SCT", "meaning": "Brain"}


def tiny_slice_model(labels: int = 1, passes: int = PASSES, side: int = SIDE) -> onnx.ModelProto:
    """image (N,1,side,side) in 0..1 -> scores (N,passes,labels), masks (N,labels,side,side), features (N,2).

    A pixel is marked where it is brighter than 0.6; the score follows the brightest patch of 8 x 8.
    """
    spread = np.linspace(0.95, 1.05, passes, dtype=np.float32).reshape(1, passes, 1)
    constants = {
        "cut": np.full((1, labels, 1, 1), 0.6),
        "half": np.full((1, 1), 0.5),
        "steep": np.full((1,), 40.0),
        "spread": spread,
        "labels_row": np.ones((1, labels)),
        "one": np.array([1], np.int64),
        "spatial": np.array([2, 3], np.int64),
    }
    nodes = [
        helper.make_node("Sub", ["image", "cut"], ["above"]),
        helper.make_node("Mul", ["above", "steep"], ["mask_logits"]),
        helper.make_node("Sigmoid", ["mask_logits"], ["masks"]),
        helper.make_node("AveragePool", ["image"], ["patches"], kernel_shape=[PATCH] * 2, strides=[PATCH] * 2),
        helper.make_node("ReduceMax", ["patches", "spatial"], ["brightest"], keepdims=0),
        helper.make_node("ReduceMean", ["patches", "spatial"], ["mean"], keepdims=0),
        helper.make_node("Concat", ["brightest", "mean"], ["features"], axis=1),
        helper.make_node("Sub", ["brightest", "half"], ["centred"]),
        helper.make_node("Mul", ["centred", "steep"], ["logit"]),
        helper.make_node("MatMul", ["logit", "labels_row"], ["logits"]),
        helper.make_node("Unsqueeze", ["logits", "one"], ["row"]),
        helper.make_node("Mul", ["row", "spread"], ["passes"]),
        helper.make_node("Sigmoid", ["passes"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny-slices",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, side, side])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", passes, labels]),
            helper.make_tensor_value_info("masks", TensorProto.FLOAT, ["N", labels, side, side]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 2]),
        ],
        [
            numpy_helper.from_array(array if array.dtype == np.int64 else array.astype(np.float32), name)
            for name, array in constants.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def slice_label(name: str = "tumour") -> dict[str, Any]:
    return {
        "label": name,
        "code": NEOPLASM if name == "tumour" else {"value": name[:16], "scheme": "99TEST", "meaning": name},
        "site": BRAIN,
        "operating_point": {"threshold": 0.5, "sensitivity": 0.9, "specificity": 0.9, "chosen_on": "nothing"},
        "calibration": {"method": "none"},
    }


def write_slice_package(
    root: Path, name: str = "tiny-brain", *, labels: Sequence[str] = ("tumour",), **overrides: Any
) -> Path:
    """Write <root>/<name>/1.0.0, a package of the task segmentation that may raise no alarm."""
    values: dict[str, Any] = {
        "task": "segmentation",
        "segmentation": {"mask_threshold": 0.5, "min_slices": 2, "min_volume_ml": 0.5},
        "may_raise_priority": False,
        **overrides,
    }
    return write_package(
        root,
        name,
        labels=[slice_label(label) for label in labels],
        model=tiny_slice_model(len(labels)),
        input_spec={"height": SIDE, "width": SIDE, "fit": "letterbox", "value_range": [0.0, 1.0]},
        reads={"modalities": ["MR"], "body_parts": ["BRAIN"], "views": [], "ages_years": None, "min_side_pixels": 64},
        **values,
    )
