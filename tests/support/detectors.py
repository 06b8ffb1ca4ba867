"""A tiny detector package: its boxes are the brightest cells of a 7 x 7 grid; nothing medical about it."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.support.packages import GRID, PASSES, SIDE, write_package

FRACTURE = {"value": "125605004", "scheme": "SCT", "meaning": "Fracture of bone"}
LIMBS = {"modalities": ["CR", "DX"], "body_parts": ["HAND", "EXTREMITY"], "views": [], "ages_years": None}
BOXES = 3


def tiny_detector(
    gain: float = 6.0, box_gain: float | None = None, boxes: int = BOXES, corners: int = 4
) -> onnx.ModelProto:
    """image (N,1,56,56) -> scores (N,8,1), cam (N,1,7,7), features (N,1), boxes (N,3,4), box_scores (N,3,1).

    A cell's score is sigmoid(gain * its mean brightness); the image's is that of its brightest cell. box_gain: boxes
    are scored box_gain * brightness without a sigmoid, so that a score may leave 0 to 1. corners: 4, or a wrong number.
    """
    step = SIDE // GRID
    constants = {
        "average": np.full((1, 1, step, step), 1.0 / step**2),
        "masks": np.linspace(0.95, 1.05, PASSES).reshape(1, PASSES, 1),
        "gain": np.array([gain]),
        "box_gain": np.array([gain if box_gain is None else box_gain]),
        "side": np.array([GRID], np.int64),
        "cells": np.array([float(GRID)]),
        "row_of_cells": np.array([0, GRID * GRID], np.int64),
        "k": np.array([boxes], np.int64),
        "last": np.array([2], np.int64),
        "one": np.array([1.0]),
        "zero_index": np.array([0], np.int64),
        "spatial": np.array([2, 3], np.int64),
    }
    sides = ["top", "left", "bottom", "right"][:corners]
    nodes = [
        helper.make_node("Conv", ["image", "average"], ["cam"], kernel_shape=[step, step], strides=[step, step]),
        helper.make_node("ReduceMean", ["cam", "spatial"], ["features"], keepdims=0),
        helper.make_node("Reshape", ["cam", "row_of_cells"], ["flat"]),
        helper.make_node("TopK", ["flat", "k"], ["best", "where"], axis=1),
        helper.make_node("Div", ["where", "side"], ["row_index"]),
        helper.make_node("Mod", ["where", "side"], ["column_index"]),
        helper.make_node("Cast", ["row_index"], ["row"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["column_index"], ["column"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["row", "one"], ["next_row"]),
        helper.make_node("Add", ["column", "one"], ["next_column"]),
    ]
    for side, value in zip(
        ("top", "left", "bottom", "right"), ("row", "column", "next_row", "next_column"), strict=True
    ):
        nodes.append(helper.make_node("Div", [value, "cells"], [f"{side}_flat"]))
        nodes.append(helper.make_node("Unsqueeze", [f"{side}_flat", "last"], [side]))
    nodes += [
        helper.make_node("Concat", sides, ["boxes"], axis=2),
        helper.make_node("Unsqueeze", ["best", "last"], ["best_column"]),
        helper.make_node("Mul", ["best_column", "box_gain"], ["box_logits"]),
        helper.make_node("Sigmoid" if box_gain is None else "Identity", ["box_logits"], ["box_scores"]),
        helper.make_node("Gather", ["best_column", "zero_index"], ["first"], axis=1),
        helper.make_node("Mul", ["first", "masks"], ["masked"]),
        helper.make_node("Mul", ["masked", "gain"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["scores"]),
    ]
    shapes: dict[str, list[Any]] = {
        "scores": ["N", PASSES, 1],
        "cam": ["N", 1, GRID, GRID],
        "features": ["N", 1],
        "boxes": ["N", boxes, corners],
        "box_scores": ["N", boxes, 1],
    }
    graph = helper.make_graph(
        nodes,
        "tiny_detector",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [
            numpy_helper.from_array(array if array.dtype == np.int64 else array.astype(np.float32), name)
            for name, array in constants.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def write_detector(root: Path, name: str = "tiny-limb", model: onnx.ModelProto | None = None, **overrides: Any) -> Path:
    """A package of the task detection that reads hands, letterboxed, and may not raise the priority."""
    label = {
        "label": "fracture",
        "code": FRACTURE,
        "operating_point": {"threshold": 0.9, "sensitivity": 0.5, "specificity": 0.5, "chosen_on": "nothing"},
        "calibration": {"method": "none"},
    }
    values: dict[str, Any] = {
        "labels": [label],
        "model": model or tiny_detector(),
        "task": "detection",
        "detection": {"box_threshold": 0.9, "max_boxes": 2},
        "input_spec": {"fit": "letterbox"},
        "reads": LIMBS,
        "may_raise_priority": False,
    }
    return write_package(root, name, **(values | overrides))
