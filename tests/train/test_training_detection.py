"""Boxes follow their picture, groups keep copies together, and the graph's boxes are what the heat map says."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.manifest import read_manifest
from training.data.fracture import SAME_PICTURE, BoxedImages, joined, read_boxes, split, to_letterbox
from training.detection_recipe import read_detection_recipe
from training.fitting.box_augment import Changes, augment, move_boxes
from training.fitting.detection import edge_loss, giou, heat_loss, targets
from training.networks.detector import FractureDetector, McDetector, Widths, cell_boxes, overlaps
from training.packaging.detector import fit_box_scaling
from training.packaging.detector_card import detector_card
from training.recipe import RecipeError
from training.recipe_file import task_of

RECIPE = Path(__file__).parents[2] / "training" / "recipes" / "limb-fracture.toml"
SMALL = Widths((4, 8, 8, 16, 16), (1, 1, 1, 1), 8)
BOX = np.array([[0.25, 0.5, 0.375, 0.75]], np.float32)


def test_all_classes_of_a_box_file_count(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("0 0.5 0.5 0.2 0.1\n3 0.1 0.2 0.4 0.2\n")
    assert read_boxes(file) == pytest.approx(np.array([[0.45, 0.4, 0.55, 0.6], [0.1, 0.0, 0.3, 0.3]]))
    file.write_text("4 0.5 0.5 0.2 0.1\n")
    with pytest.raises(ValueError, match="class"):
        read_boxes(file)
    file.write_text("")
    assert read_boxes(file).shape == (0, 4)


def test_a_box_is_letterboxed_as_its_picture_is() -> None:
    """A picture twice as wide as high fills the middle half of the square."""
    whole = to_letterbox(np.array([[0.0, 0.0, 1.0, 1.0]], np.float32), (100, 200), 64)
    assert whole.tolist() == [[0.25, 0.0, 0.75, 1.0]]


def test_sources_with_the_same_picture_are_one_group() -> None:
    assert joined(["1", "2", "3"], [("2", "3")]) == ("1", "2", "2")
    assert joined(["1", "2", "3"], [("2", "3"), ("3", "1")]) == ("1", "1", "1")
    groups = joined(["7", "10", "223", "8"], SAME_PICTURE)
    assert len(set(groups[:3])) == 1
    assert groups[3] not in groups[:3]


def test_no_group_crosses_a_split() -> None:
    n = 60
    groups = joined([str(i % 30) for i in range(n)])
    names = tuple(map(str, range(n)))
    images = BoxedImages(names, np.zeros((n, 4, 4), np.uint8), (BOX,) * n, groups, ((4, 4),) * n)
    parts = split(images, {"train": 0.5, "calibration": 0.2, "test": 0.3}, "salt")
    assert sum(len(part) for part in parts.values()) == n
    seen = [set(part.groups) for part in parts.values()]
    assert not seen[0] & seen[1] | seen[0] & seen[2] | seen[1] & seen[2]


def test_a_box_follows_its_picture_through_any_change() -> None:
    """A bright square stays inside its box, and fills most of it, whatever the draw."""
    size, n = 64, 24
    picture = torch.zeros(n, 1, size, size)
    picture[:, :, 24:36, 28:40] = 1.0
    box = np.array([[24, 28, 36, 40]], np.float32) / size
    quiet = Changes(gamma=(1, 1), contrast=(1, 1), brightness=0.0, noise=0.0)
    moved, boxes = augment(picture, [box] * n, torch.Generator().manual_seed(5), quiet)
    kept = [(one[0], own[0]) for one, own in zip(moved, boxes, strict=True) if len(own)]
    assert len(kept) >= n - 4
    for one, (top, left, bottom, right) in kept:
        rows, columns = np.nonzero(one.numpy() > 0.5)
        centre = (rows.mean() + 0.5) / size, (columns.mean() + 0.5) / size
        assert centre == pytest.approx(((top + bottom) / 2, (left + right) / 2), abs=0.03)
        assert (bottom - top) * (right - left) * size**2 == pytest.approx(len(rows), rel=0.35)


def test_a_box_that_leaves_the_picture_is_dropped() -> None:
    far = np.eye(3, dtype=np.float32)
    far[0, 2] = 3.0
    assert move_boxes(BOX, far).shape == (0, 4)
    assert move_boxes(BOX, np.eye(3, dtype=np.float32)) == pytest.approx(BOX)


def test_the_target_is_one_at_a_centre_and_aims_at_its_box() -> None:
    aim = targets([BOX, np.zeros((0, 4), np.float32)], 8)
    assert float(aim.heat[0, 0, 2, 5]) == 1.0
    assert int((aim.heat > 0.999).sum()) == 1
    assert float(aim.heat[1].max()) == 0.0
    assert aim.boxes[0, :, 2, 5].tolist() == pytest.approx(BOX[0].tolist())
    assert float(aim.weight[0].sum()) == pytest.approx(1.0)


def test_the_right_answer_costs_nothing_and_a_wrong_one_more() -> None:
    aim = targets([BOX], 8)
    right = torch.where(aim.heat > 0.999, 9.0, -9.0)
    assert float(heat_loss(right, aim.heat)) < 0.01 < float(heat_loss(-right, aim.heat))
    cells = torch.full((1, 4, 8, 8), 0.5)
    cells[:, 0], cells[:, 1], cells[:, 2], cells[:, 3] = 0.5, 1.5, 0.5, 0.5  # up, left, down, right of row 2, column 5
    exact = targets([cell_boxes(cells)[:, :, 2, 5].numpy()], 8)
    assert float(edge_loss(cells, exact)) < float(edge_loss(cells * 4, exact))
    assert giou(torch.tensor(BOX), torch.tensor(BOX)).item() == pytest.approx(1.0, abs=1e-4)


def test_nothing_to_learn_costs_nothing() -> None:
    aim = targets([np.zeros((0, 4), np.float32)], 8)
    assert float(edge_loss(torch.ones(1, 4, 8, 8, requires_grad=True), aim).detach()) == 0.0


@pytest.fixture(scope="module")
def graph() -> McDetector:
    torch.manual_seed(3)
    net = FractureDetector(1, SMALL, dropout=0.3)
    torch.nn.init.normal_(net.heat.weight, std=1.0)
    return McDetector(net, passes=6, boxes=5).eval()


def test_the_graph_keeps_its_promises(graph: McDetector) -> None:
    with torch.inference_mode():
        scores, cam, boxes, box_scores, features = graph(torch.randn(2, 1, 128, 128))
    assert scores.shape == (2, 6, 1)
    assert cam.shape == (2, 1, 4, 4)
    assert boxes.shape == (2, 5, 4)
    assert box_scores.shape == (2, 5, 1)
    assert features.shape[0] == 2
    assert bool((box_scores.diff(dim=1) <= 0).all())
    assert bool(((boxes >= 0) & (boxes <= 1)).all())
    assert bool((scores.std(dim=1) > 0).all())


def test_a_box_that_a_better_one_overlaps_is_silenced(graph: McDetector) -> None:
    logits = torch.full((1, 1, 8, 8), -8.0)
    logits[0, 0, 2, 2], logits[0, 0, 2, 4], logits[0, 0, 6, 6] = 3.0, 2.0, 1.0
    boxes = torch.zeros(1, 4, 8, 8)
    boxes[0, :, 2, 2] = boxes[0, :, 2, 4] = torch.tensor([0.2, 0.2, 0.5, 0.5])
    boxes[0, :, 6, 6] = torch.tensor([0.7, 0.7, 0.9, 0.9])
    found, scores, first = graph._best(logits, boxes)
    assert found[0, :2].flatten().tolist() == pytest.approx([0.2, 0.2, 0.5, 0.5, 0.7, 0.7, 0.9, 0.9])
    assert scores[0, :2, 0].tolist() == pytest.approx([0.9526, 0.7311], abs=1e-4)
    assert float(scores[0, 2, 0]) < 0.01
    assert first.tolist() == [2 * 8 + 2]


def test_the_scores_are_those_of_the_best_box(graph: McDetector) -> None:
    """Without dropout's noise the passes would be the best box's score; they lie around it."""
    graph.masks.fill_(1.0)
    with torch.inference_mode():
        scores, _, _, box_scores, _ = graph(torch.randn(3, 1, 128, 128))
    assert scores[:, 0].flatten().tolist() == pytest.approx(box_scores[:, 0].flatten().tolist(), abs=1e-5)


def test_overlap_of_a_box_with_itself_is_whole() -> None:
    table = overlaps(torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0.0, 0.25, 0.5, 0.75]]]))
    assert table[0].flatten().tolist() == pytest.approx([1.0, 1 / 3, 1 / 3, 1.0], abs=1e-3)


def test_boxes_are_calibrated_as_they_come() -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.05, 0.95, 4000)
    scaling = fit_box_scaling(scores, rng.uniform(size=4000) < scores / 2)
    said = scaling.apply(np.array([0.2, 0.8]))
    assert said == pytest.approx([0.1, 0.4], abs=0.06)


def test_a_card_without_a_rule_of_abstention_says_why() -> None:
    folder = next((Path(__file__).parents[2] / "models" / "limb-fracture").iterdir())
    figures = json.loads((folder / "validation.json").read_text())
    figures["splits"]["calibration"] |= {"pictures": 131, "without_box": 9}
    text = detector_card(read_manifest(folder), figures, "Made for a test.")
    assert "Abstention: no rule was fitted" in text
    assert "of the calibration split's 131 pictures only 9 have no box" in text


def test_the_recipe_is_read_and_a_fault_is_named(tmp_path: Path) -> None:
    assert task_of(RECIPE) == "detection"
    assert read_detection_recipe(RECIPE).package.may_raise_priority is False
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(RECIPE.read_text().replace("size = 256", "size = 250"))
    with pytest.raises(RecipeError, match="size"):
        read_detection_recipe(wrong)
