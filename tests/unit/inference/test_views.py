"""Views and members: how their outputs become those of one model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from config.settings import LookSettings
from inference.engines import Resources
from inference.errors import PackageError
from inference.manifest import InputSpec, View, parse_manifest
from inference.outputs import Outputs
from inference.package import load_package, load_packages
from inference.session import ModelSession
from inference.verify import verify
from inference.views import SHIFT, ZOOM, Run, run_all, seen_as
from tests.support.packages import PASSES, SIDE, tiny_model, write_ensemble, write_package

Images = NDArray[np.float32]
ALL: tuple[View, ...] = ("as_is", "mirrored", "closer", "wider", "left", "right", "up", "down")


def spec(*views: View) -> InputSpec:
    return InputSpec(
        height=SIDE, width=SIDE, fit="squash", window="header", percentiles=None, value_range=(-1.0, 1.0),
        test_time=views,
    )  # fmt: skip


def noise(n: int = 2, seed: int = 3) -> Images:
    return np.random.default_rng(seed).uniform(-1, 1, (n, 1, SIDE, SIDE)).astype(np.float32)


def spot(row: int, column: int) -> Images:
    image = np.full((1, 1, SIDE, SIDE), -1.0, np.float32)
    image[0, 0, row - 2 : row + 3, column - 2 : column + 3] = 1.0
    return image


def where(image: Images) -> tuple[float, float]:
    weight = image[0, 0] + 1.0
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return float((rows * weight).sum() / weight.sum()), float((columns * weight).sum() / weight.sum())


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        ("as_is", (20, 40)),
        ("mirrored", (20, SIDE - 1 - 40)),
        ("left", (20, 40 - round(SHIFT * SIDE))),
        ("right", (20, 40 + round(SHIFT * SIDE))),
        ("up", (20 - round(SHIFT * SIDE), 40)),
        ("down", (20 + round(SHIFT * SIDE), 40)),
        ("closer", tuple((at - 27.5) * ZOOM + 27.5 for at in (20, 40))),
        ("wider", tuple((at - 27.5) / ZOOM + 27.5 for at in (20, 40))),
    ],
)
def test_a_view_shows_things_where_its_name_says(view: View, expected: tuple[float, float]) -> None:
    seen = seen_as(spot(20, 40), view, -1.0)
    assert (seen.shape, seen.dtype) == ((1, 1, SIDE, SIDE), np.float32)
    assert where(seen) == pytest.approx(expected, abs=0.15)


@pytest.mark.parametrize("view", ["wider", "left", "right", "up", "down"])
def test_what_a_view_does_not_cover_is_dark(view: View) -> None:
    bright = np.ones((2, 1, SIDE, SIDE), np.float32)
    seen = seen_as(bright, view, -1.0)
    border = {"left": seen[..., :, -1], "right": seen[..., :, 0], "up": seen[..., -1, :], "down": seen[..., 0, :]}
    assert (border.get(view, seen[..., 0, :]) == -1.0).all()
    assert (seen == 1.0).mean() > 0.8


def stand_in(offset: float) -> Run:
    """Says what it sees: scores (N, 2, 1), a map of 2 x 2, a box; all moved by `offset`."""

    def run(images: Images) -> Outputs:
        halves = images.reshape(len(images), 1, 2, SIDE // 2, 2, SIDE // 2).mean(axis=(3, 5))
        mean = images.mean(axis=(1, 2, 3)) + np.float32(offset)
        return Outputs(
            np.stack([mean, mean + np.float32(0.1)], axis=1)[..., np.newaxis],
            mean[:, np.newaxis],
            {"cam": halves + np.float32(offset), "boxes": mean[:, np.newaxis, np.newaxis] * np.ones((1, 1, 4), "f4")},
        )

    return run


def test_passes_stand_in_a_row_member_by_member_and_view_by_view() -> None:
    images = noise()
    members = [stand_in(0.0), stand_in(1.0)]
    out = run_all(members, images, spec("as_is", "closer", "up"))
    assert out.scores.shape == (2, 2 * 3 * 2, 1)
    parts = [run(seen_as(images, view, -1.0)).scores for run in members for view in ("as_is", "closer", "up")]
    assert np.array_equal(out.scores, np.concatenate(parts, axis=1))


def test_features_and_boxes_are_the_first_members_for_the_picture_as_it_is() -> None:
    images = noise()
    out = run_all([stand_in(0.0), stand_in(1.0)], images, spec("as_is", "closer"))
    first = stand_in(0.0)(images)
    assert np.array_equal(out.features, first.features)
    assert np.array_equal(out.places["boxes"], first.places["boxes"])


def test_maps_are_averaged_over_members_and_over_the_mirrored_view_mirrored_back() -> None:
    images = spot(20, 40)
    alone = stand_in(0.0)(images).places["cam"]
    assert np.allclose(run_all([stand_in(0.0)], images, spec("as_is", "mirrored", "left")).places["cam"], alone)
    assert np.allclose(run_all([stand_in(0.0), stand_in(1.0)], images, spec("as_is")).places["cam"], alone + 0.5)


def opened(folder: Path) -> ModelSession:
    session = ModelSession(load_package(folder), "cpu", Resources(1))
    session.self_test()
    return session


def test_a_package_of_two_members_and_three_views_says_how_many_passes_it_has(tmp_path: Path) -> None:
    models = [tiny_model(), tiny_model(offset=0.5)]
    folder = write_ensemble(tmp_path, models, input_spec={"test_time": ["as_is", "mirrored", "up"]})
    session = opened(folder)
    assert session.run(noise()).scores.shape == (2, 6 * PASSES, 1)
    assert session.package.identity.passes == 6 * PASSES
    assert verify(folder) == []


def test_an_ensembles_golden_examples_are_those_of_all_members(tmp_path: Path) -> None:
    models = [tiny_model(), tiny_model(offset=0.5)]
    folder = write_ensemble(tmp_path, models)
    changed = write_ensemble(tmp_path / "changed", [models[0], tiny_model(offset=0.9)], golden=folder / "golden.npz")
    assert any("differs" in problem for problem in verify(changed))


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (tiny_model(spread=0.0), "identical"),
        (tiny_model(scores="nan"), "finite"),
        (tiny_model(scores="logits"), "between 0 and 1"),
        (tiny_model(labels=2), "shapes"),
    ],
    ids=["identical passes", "NaN", "logits", "labels"],
)
def test_every_member_is_put_through_the_test(tmp_path: Path, bad: Any, says: str, which: int) -> None:
    models = [tiny_model(), tiny_model(offset=0.5)]
    models[which] = bad
    with pytest.raises(PackageError, match=rf"member-{which}\.onnx.*{says}"):
        opened(write_ensemble(tmp_path, models))


def test_members_that_say_the_same_in_one_pass_each_are_refused(tmp_path: Path) -> None:
    models = [tiny_model(passes=1), tiny_model(passes=1)]
    with pytest.raises(PackageError, match="all 2 passes are identical"):
        opened(write_ensemble(tmp_path, models, passes=1))
    assert opened(write_ensemble(tmp_path / "other", [models[0], tiny_model(passes=1, offset=0.5)], passes=1))


@pytest.mark.parametrize("which", [0, 1])
def test_a_missing_or_changed_member_is_refused(tmp_path: Path, which: int) -> None:
    folder = write_ensemble(tmp_path, [tiny_model(), tiny_model(offset=0.5)])
    file = folder / f"member-{which}.onnx"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(PackageError, match=rf"member-{which}\.onnx.*SHA-256"):
        load_packages(LookSettings(models_dir=tmp_path))
    file.unlink()
    with pytest.raises(PackageError, match=rf"member-{which}\.onnx"):
        load_packages(LookSettings(models_dir=tmp_path))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"members": ["a.onnx"]}, "files must list each: a.onnx"),
        ({"members": ["model.onnx", "model.onnx"]}, "one stands twice"),
        ({"members": []}, "members"),
    ],
)
def test_a_manifest_must_list_its_members_once_and_pin_them(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(PackageError, match=says):
        load_package(write_package(tmp_path, **change))


@pytest.mark.parametrize("views", [["mirrored"], ["mirrored", "as_is"], ["as_is", "up", "up"], ["as_is", "upside"], []])
def test_views_begin_with_the_picture_as_it_is(tmp_path: Path, views: Sequence[str]) -> None:
    folder = write_package(tmp_path, input_spec={"test_time": views})
    with pytest.raises(ValueError, match="test_time"):
        parse_manifest((folder / "manifest.json").read_bytes())
