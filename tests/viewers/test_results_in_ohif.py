"""What a radiologist sees of the node's results in OHIF, a browser and an archive being the real ones."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.support.clinic import COLUMNS, PATCH, ROWS, Archive, Clinic
from tests.support.viewer import Box, Viewer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(600)
REPORT, MEASUREMENTS, PICTURE, SEGMENTATION = ": report (", "measurements (", "picture", "segmentation ("
LONG = 32  # of a description: past the number of a final report that follows a provisional one
CELL = 512 / 7  # the detector answers in cells of the letterboxed picture
Keep = Callable[[str], None]


def shows_report(reader: Viewer, description: str) -> bool:
    """A text report is a page of text; a measurement report is drawn over the image that it speaks of."""
    if "measurements" in description:
        return bool(reader.boxes()) and "robability: " in reader.text() and reader.pixels().std() > 1
    return "Impression: AI" in reader.text()


SEEN: dict[str, Callable[[Viewer, str], bool]] = {
    "SR": shows_report,
    "SEG": lambda reader, _: "open this Segmentation" in reader.asks() and bool(coloured(reader.pixels()).any()),
    **dict.fromkeys(("DX", "MR", "OT"), lambda reader, said: said in reader.text() and bool(reader.pixels().std() > 1)),
}


@pytest.fixture(scope="module")
def reader() -> Iterator[Viewer]:
    with Viewer() as viewer:
        yield viewer


@pytest.fixture
def keep(request: pytest.FixtureRequest, reader: Viewer) -> Keep:
    """Keep the page as it is, when pictures are wanted."""
    folder: Path | None = request.config.getoption("--pictures")

    def kept(name: str) -> None:
        if folder is not None:
            reader.keep(folder / f"{name}.png")

    return kept


def open_study(reader: Viewer, archive: Archive, study_uid: str) -> dict[str, str]:
    """Its series: SeriesDescription: Modality."""
    series = archive.series_of(study_uid)
    reader.open(archive.url, study_uid, len(series))
    return series


def on_screen(reader: Viewer, box: tuple[float, float, float, float], rows: int, columns: int) -> Box:
    """Where (top, left, bottom, right) of the image lies in a viewport that shows the whole of it."""
    height, width = reader.pixels().shape[:2]
    scale = min(width / columns, height / rows)
    x, y = (width - columns * scale) / 2, (height - rows * scale) / 2
    top, left, bottom, right = box
    return Box(x + left * scale, y + top * scale, x + right * scale, y + bottom * scale)


def filled_by(picture: Image.Image, reader: Viewer) -> Image.Image:
    """The part of the viewport that a picture of this shape fills."""
    place = on_screen(reader, (0, 0, picture.height, picture.width), picture.height, picture.width)
    return Image.fromarray(reader.pixels()).crop((place.left, place.top, place.right, place.bottom))


def likeness(one: Image.Image, other: Image.Image) -> float:
    """The correlation of both, each in the same small size; NaN where one is of one colour."""
    pair = [np.asarray(picture.resize((160, 160), Image.Resampling.BOX), float).ravel() for picture in (one, other)]
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.corrcoef(*pair)[0, 1])


def coloured(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where the picture is not grey: (rows, columns)."""
    return np.ptp(pixels.astype(int), axis=-1) > 24


def test_the_text_report_is_readable(hospital: Clinic, reader: Viewer, keep: Keep) -> None:
    open_study(reader, hospital.viewer, hospital.flagged)
    reader.show(REPORT)
    said = reader.text()
    assert "AI PRIORITY: HIGH" in said
    assert "Pneumonia: FLAGGED. Probability" in said
    assert "For research use only" in said
    assert "LOW" not in said
    keep("ohif-report")


def test_the_secondary_capture_shows_what_was_sent(hospital: Clinic, reader: Viewer, keep: Keep) -> None:
    open_study(reader, hospital.viewer, hospital.flagged)
    reader.show("OT ")
    sent = Image.fromarray(hospital.viewer.file(hospital.flagged, "OT").pixel_array)
    # on a busy machine the picture before it stays a while
    wait_until(lambda: likeness(sent, filled_by(sent, reader)) > 0.97, 30)
    assert coloured(np.asarray(filled_by(sent, reader))).mean() > 0.01
    keep("ohif-secondary-capture")


def test_a_detectors_box_is_drawn_where_it_was_found_with_its_label(
    hospital: Clinic, reader: Viewer, keep: Keep
) -> None:
    open_study(reader, hospital.viewer, hospital.limb)
    reader.show(MEASUREMENTS)
    (drawn,) = reader.boxes()
    planted = on_screen(reader, PATCH, ROWS, COLUMNS)
    cell = on_screen(reader, (0, 0, CELL, CELL), ROWS, COLUMNS)
    reach = cell.right - cell.left
    assert [drawn.left, drawn.top, drawn.right, drawn.bottom] == pytest.approx(
        [planted.left, planted.top, planted.right, planted.bottom], abs=reach / 2
    )
    assert "Fracture probability: 99." in reader.text()
    keep("ohif-box")


def test_tracking_yields_one_measurement_named_with_finding_and_probability(
    hospital: Clinic, reader: Viewer, keep: Keep
) -> None:
    open_study(reader, hospital.viewer, hospital.limb)
    assert reader.measurements() == []
    reader.show(MEASUREMENTS)
    assert "tracking measurements" in reader.asks()
    reader.answer("Yes")
    wait_until(reader.measurements, 60)
    (said,) = reader.measurements()
    assert "AI (research): Fracture 99." in said
    assert "Fracture of bone" in said
    keep("ohif-tracked")


def test_a_segmentation_lies_on_what_was_planted(hospital: Clinic, reader: Viewer, keep: Keep) -> None:
    open_study(reader, hospital.viewer, hospital.head)
    reader.show(SEGMENTATION)
    reader.answer("Yes")
    shown = coloured(reader.pixels())
    side = 256
    planted = on_screen(reader, (side // 8, side // 8, side // 4, side // 4), side, side)
    truth = np.zeros_like(shown)
    truth[round(planted.top) : round(planted.bottom), round(planted.left) : round(planted.right)] = True
    assert np.logical_and(shown, truth).sum() / np.logical_or(shown, truth).sum() > 0.9
    keep("ohif-segmentation")


def test_a_tumour_that_the_shipped_model_marked_shows_on_real_slices(hospital: Clinic, reader: Viewer) -> None:
    if hospital.real is None:
        pytest.skip("no real images: set OPENTRIAGE_DATA")
    open_study(reader, hospital.viewer, hospital.real)
    reader.show("AX FLAIR")
    assert not coloured(reader.pixels()).any()
    reader.show(SEGMENTATION)  # on the first slice that it marks
    assert coloured(reader.pixels()).sum() > 100
    reader.answer("Yes")
    assert coloured(reader.pixels()).sum() > 100


@pytest.mark.parametrize("name", ["flagged", "unflagged", "limb", "head", "real"])
def test_no_report_opens_a_blank_viewport(hospital: Clinic, reader: Viewer, name: str) -> None:
    if name not in hospital.studies:
        pytest.skip("no real images: set OPENTRIAGE_DATA")
    series = open_study(reader, hospital.viewer, hospital.studies[name])
    for description, modality in series.items():
        reader.show(description[:LONG])
        assert not reader.is_blank(), description
        assert SEEN[modality](reader, description), description
        assert not reader.went_wrong(), description
    assert reader.failures == []


def test_what_the_default_profile_sends_keeps_no_study_from_opening(hospital: Clinic, reader: Viewer) -> None:
    """OHIF shows no key objects: it warns of them and shows the rest. Without a box there is no presentation state."""
    series = open_study(reader, hospital.archive, hospital.flagged)
    assert "KO" in series.values()
    assert "PR" not in series.values()
    for description, modality in series.items():
        if modality in SEEN:
            reader.show(description[:LONG])
            assert SEEN[modality](reader, description), description
    assert reader.failures == []


def test_a_blank_viewport_is_known_when_it_is_seen(hospital: Clinic, reader: Viewer) -> None:
    """A volume by itself (TID 1411) has no place in an image: why profile "ohif" puts it into the plane of a slice."""
    open_study(reader, hospital.archive, hospital.head)
    reader.show(MEASUREMENTS)
    assert reader.is_blank()
    assert reader.went_wrong()


def test_the_viewer_asks_nobody_but_its_own_archive(hospital: Clinic, reader: Viewer) -> None:
    open_study(reader, hospital.viewer, hospital.flagged)
    assert reader.asked_elsewhere == []
