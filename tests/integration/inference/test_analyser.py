"""The whole of look and decide over real DICOM files: each instance ends in a result with a status and a reason."""

import errno
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from config.settings import DecideSettings
from inference.analyser import Analyser, Source
from inference.errors import CannotLook
from inference.header import HeaderFacts
from inference.sandbox import DecodeChild
from ledger.reconcile import dataset_sha256
from ledger.records import ImageResult, ResultStatus, TriagePriority
from ledger.store import Store
from tests.integration.inference.conftest import MakeAnalyser
from tests.support.dicom_files import bomb, square
from tests.support.dx import make_dx, write
from tests.support.packages import GRID, label, tiny_model

BRIGHT = np.full((256, 256), 3500, np.uint16)
BRIGHT[:8] = 0
SC = "1.2.840.10008.5.1.4.1.1.7"  # Secondary Capture Image Storage
DARK = np.full((256, 256), 200, np.uint16)
DARK[:8] = 0


def analyse(analyser: Analyser, tmp_path: Path, *data_sets: Dataset) -> list[ImageResult]:
    sources = [Source(write(ds, tmp_path / f"{i}.dcm")) for i, ds in enumerate(data_sets)]
    looked = analyser.analyse(sources)
    assert [entry.path for entry in looked] == [source.path for source in sources]
    assert all(len(entry.results) == 1 for entry in looked)
    return [entry.results[0] for entry in looked]


def test_a_bright_chest_is_flagged_with_everything_a_report_needs(
    make_analyser: MakeAnalyser, tmp_path: Path, store: Store
) -> None:
    analyser = make_analyser(store)
    ds = make_dx(BRIGHT)
    (looked,) = analyser.analyse([Source(write(ds, tmp_path / "x.dcm"))])
    (result,) = looked.results
    assert (looked.study_instance_uid, looked.sop_instance_uid) == (ds.StudyInstanceUID, ds.SOPInstanceUID)
    assert (result.status, result.priority) == (ResultStatus.ANALYSED, TriagePriority.HIGH)
    assert result.findings[0].present
    assert result.critical_flags == ("RESPIRATORY_EMERGENCY",)
    assert result.recommendations[0] == "Read with priority."
    assert result.model is not None
    assert result.model.digest == analyser._packages[0].digest
    assert result.duration_ms > 0
    assert (result.source_rows, result.source_columns) == (256, 256)
    assert len(result.settings_hash) == 64
    assert result.source_sha256 == dataset_sha256(tmp_path / "x.dcm")
    assert result.display_path is not None
    with Image.open(io.BytesIO(store.read(result.display_path))) as picture:
        assert (picture.mode, picture.size) == ("L", (256, 256))


def test_a_dark_chest_is_low_and_leaves_no_picture(make_analyser: MakeAnalyser, tmp_path: Path, store: Store) -> None:
    (result,) = analyse(make_analyser(store), tmp_path, make_dx(DARK))
    assert (result.status, result.priority, result.display_path) == (ResultStatus.ANALYSED, TriagePriority.LOW, None)
    assert result.recommendations == ()


def test_monochrome1_is_read_as_inverted_monochrome2(make_analyser: MakeAnalyser, tmp_path: Path) -> None:
    dark_as_bright = make_dx(4095 - DARK, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
    one, two = analyse(make_analyser(), tmp_path, make_dx(DARK), dark_as_bright)
    assert one.findings[0].probability == pytest.approx(two.findings[0].probability, abs=1e-4)


@pytest.mark.parametrize(
    ("change", "status", "reason_code"),
    [
        ({"Modality": "CT"}, ResultStatus.NOT_APPLICABLE, "modality_not_read"),
        ({"BodyPartExamined": "HAND"}, ResultStatus.NOT_APPLICABLE, "body_part_not_read"),
        ({"ViewPosition": "LL"}, ResultStatus.NOT_APPLICABLE, "view_not_read"),
        ({"PatientAge": None, "PatientBirthDate": None}, ResultStatus.NOT_ASSESSED, "age_unknown"),
        ({"PatientAge": "044Y"}, ResultStatus.NOT_ASSESSED, "age_outside"),
        ({"PresentationIntentType": "FOR PROCESSING"}, ResultStatus.NOT_ASSESSED, "for_processing"),
        ({"ImageType": ["DERIVED", "SECONDARY"]}, ResultStatus.NOT_APPLICABLE, "secondary_image"),
        ({"Rows": 255}, ResultStatus.NOT_ASSESSED, "pixel_length"),
        ({"PixelData": None}, ResultStatus.NOT_ASSESSED, "no_pixel_data"),
        ({"RescaleSlope": "0"}, ResultStatus.NOT_ASSESSED, "rescale_invalid"),
        ({"WindowWidth": "0"}, ResultStatus.NOT_ASSESSED, "window_invalid"),
        ({"ImageType": ["DERIVED", "PRIMARY"]}, ResultStatus.ANALYSED, ""),
        ({"SOPClassUID": SC, "Modality": "OT"}, ResultStatus.ANALYSED, ""),
        ({"SOPClassUID": SC, "Modality": None}, ResultStatus.ANALYSED, ""),
        ({"SOPClassUID": SC, "Modality": "OT", "PatientAge": "044Y"}, ResultStatus.NOT_ASSESSED, "age_outside"),
        ({"ViewPosition": None, "ViewCodeSequence": None, "BodyPartExamined": None, "AnatomicRegionSequence": None,
          "PresentationIntentType": None}, ResultStatus.ANALYSED, ""),
    ],
)  # fmt: skip
def test_every_reason_has_its_name(
    make_analyser: MakeAnalyser, tmp_path: Path, change: dict[str, Any], status: ResultStatus, reason_code: str
) -> None:
    (result,) = analyse(make_analyser(), tmp_path, make_dx(**change))
    assert (result.status, result.reason_code) == (status, reason_code)
    assert bool(result.reason) is (status is not ResultStatus.ANALYSED)
    assert (result.priority is None) is (status is ResultStatus.NOT_APPLICABLE)
    assert (result.model is None) is (status is ResultStatus.NOT_APPLICABLE)


def test_one_grey_is_not_assessed(make_analyser: MakeAnalyser, tmp_path: Path) -> None:
    (result,) = analyse(make_analyser(), tmp_path, make_dx(np.full((200, 200), 1234, np.uint16)))
    assert result.reason_code == "constant_pixels"


def test_what_is_unlike_the_training_images_is_not_assessed(make_analyser: MakeAnalyser, tmp_path: Path) -> None:
    analyser = make_analyser(packages=[{"gate_threshold": 3.0}])
    grey = np.full((256, 256), 2048, np.uint16)
    grey[:4] = 1900
    near, far = analyse(analyser, tmp_path, make_dx(grey), make_dx(BRIGHT))
    assert near.status is ResultStatus.ANALYSED
    assert (far.status, far.reason_code) == (ResultStatus.NOT_ASSESSED, "outside_distribution")


def test_an_unknown_body_part_is_judged_by_its_pixels(make_analyser: MakeAnalyser, tmp_path: Path) -> None:
    nowhere = dict.fromkeys(("BodyPartExamined", "AnatomicRegionSequence", "SeriesDescription", "StudyDescription"))
    (far,) = analyse(make_analyser(packages=[{"gate_threshold": 3.0}]), tmp_path, make_dx(BRIGHT, **nowhere))
    assert (far.status, far.reason_code) == (ResultStatus.NOT_APPLICABLE, "body_part_unknown")
    assert far.model is None


@pytest.mark.parametrize("fit", ["squash", "letterbox"])
@pytest.mark.parametrize("shape", [(300, 300), (300, 500), (520, 260)])
@pytest.mark.parametrize("corner", [(0.1, 0.1), (0.6, 0.2), (0.3, 0.7)])
def test_the_activation_map_lies_where_the_evidence_is(
    make_analyser: MakeAnalyser, tmp_path: Path, fit: str, shape: tuple[int, int], corner: tuple[float, float]
) -> None:
    rows, columns = shape
    side = min(shape) // 5
    top, left = int(corner[0] * rows), int(corner[1] * columns)
    analyser = make_analyser(packages=[{"input_spec": {"fit": fit}}])
    (result,) = analyse(analyser, tmp_path, make_dx(square(rows, columns, top, left, side)))
    activation = result.findings[0].activation
    assert activation is not None
    values = np.array(activation.values)
    y, x = np.unravel_index(values.argmax(), values.shape)
    box_top, box_left, box_bottom, box_right = activation.box
    cell = ((box_bottom - box_top) / GRID, (box_right - box_left) / GRID)
    assert abs(box_top + (y + 0.5) * cell[0] - (top + side / 2)) <= cell[0]
    assert abs(box_left + (x + 0.5) * cell[1] - (left + side / 2)) <= cell[1]


def test_a_bomb_in_a_batch_costs_one_instance(make_analyser: MakeAnalyser, tmp_path: Path) -> None:
    analyser = make_analyser()
    good = write(make_dx(BRIGHT), tmp_path / "good.dcm")
    (tmp_path / "text").write_text("hello")
    looked = analyser.analyse(
        [Source(good), Source(bomb(tmp_path / "bomb.dcm")), Source(tmp_path / "text"), Source(good)]
    )
    results = [entry.results[0] for entry in looked]
    assert [result.status.value for result in results] == ["analysed", "not_assessed", "failed", "analysed"]
    assert [looked[2].study_instance_uid, results[2].reason_code, results[2].model] == [None, "unreadable", None]
    assert results[1].reason_code in ("decode_limit", "pixel_length")
    assert results[1].priority is TriagePriority.NOT_ASSESSED


def headerless(path: Path) -> None:
    """A data set as it would come over the network: no preamble, no 'DICM', no group 0002."""
    path.write_bytes(write(make_dx(BRIGHT), path).read_bytes()[132:])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_text("hello " * 100), "No Part 10 header"),
        (lambda path: path.write_bytes(bytes(range(256)) * 40), "No Part 10 header"),
        (headerless, "lacks its preamble and 'DICM'"),
        (lambda path: path.write_bytes(b""), "No Part 10 header"),
        (lambda path: path.write_bytes(bytes(128) + b"DICM" + b"\xff" * 900), "cannot be read"),
        (lambda path: path.write_bytes(bytes(128) + b"DICM" + b"hello world " * 50), "cannot be read"),
        (lambda path: Image.new("L", (300, 300)).save(path, "PNG"), "need --as chest-xray"),
    ],
    ids=["text", "bytes", "no preamble", "empty", "garbage", "words", "picture"],
)
def test_what_has_no_readable_header_failed_and_no_model_is_said_to_be_meant_for_it(
    make_analyser: MakeAnalyser, tmp_path: Path, make: Callable[[Path], object], reason: str
) -> None:
    make(tmp_path / "x")
    (looked,) = make_analyser().analyse([Source(tmp_path / "x")])
    (result,) = looked.results
    assert (looked.study_instance_uid, looked.series_instance_uid, looked.sop_instance_uid) == (None, None, None)
    assert (result.status, result.priority) == (ResultStatus.FAILED, TriagePriority.NOT_ASSESSED)
    assert (result.model, result.findings, result.recommendations) == (None, (), ())
    assert reason in result.reason


def test_a_header_that_breaks_the_limits_failed(
    make_analyser: MakeAnalyser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_time(child: DecodeChild, *request: object) -> HeaderFacts:
        raise CannotLook("decode_limit", "Decoding took longer than this node allows.")

    monkeypatch.setattr(DecodeChild, "look", out_of_time)
    (result,) = analyse(make_analyser(), tmp_path, make_dx(BRIGHT))
    assert (result.status, result.reason_code) == (ResultStatus.FAILED, "decode_limit")
    assert (result.priority, result.recommendations) == (TriagePriority.NOT_ASSESSED, ())


def test_an_image_gets_the_same_numbers_in_any_company(make_analyser: MakeAnalyser, tmp_path: Path) -> None:
    analyser = make_analyser(look={"batch_max": 4})
    path = write(make_dx(), tmp_path / "x.dcm")
    others = [write(make_dx(pixels), tmp_path / f"{i}.dcm") for i, pixels in enumerate((BRIGHT, DARK, BRIGHT))]
    (alone,) = analyser.analyse([Source(path)])
    crowd = analyser.analyse([Source(p) for p in (*others, path, *others)])
    assert alone.results[0].findings == crowd[3].results[0].findings


def test_one_failing_package_never_stops_another(make_analyser: MakeAnalyser, tmp_path: Path) -> None:
    analyser = make_analyser(packages=[{"name": "a"}, {"name": "b"}])
    broken = analyser._sessions[analyser._packages[0].digest]
    broken.run = lambda images: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    (looked,) = analyser.analyse([Source(write(make_dx(BRIGHT), tmp_path / "x.dcm"))])
    by_name = {result.model.name: result for result in looked.results if result.model}
    assert (by_name["a"].status, by_name["a"].reason_code) == (ResultStatus.FAILED, "internal_error")
    assert by_name["a"].priority is TriagePriority.NOT_ASSESSED
    assert by_name["b"].status is ResultStatus.ANALYSED


def test_a_picture_that_the_disk_has_no_room_for_fails_the_turn_and_not_the_image(
    make_analyser: MakeAnalyser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that only needed a larger disk is looked at again, and never "failed" for good."""
    analyser = make_analyser()
    analyser._store = Store(tmp_path / "store")

    def full(*of: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(analyser._store, "put", full)
    with pytest.raises(OSError, match="No space left"):
        analyse(analyser, tmp_path, make_dx(BRIGHT))


def test_a_number_that_is_none_is_a_failure_and_never_negative(make_analyser: MakeAnalyser, tmp_path: Path) -> None:
    """Fine at load, NaN for this one image: its neighbour is analysed all the same."""
    analyser = make_analyser()
    session = analyser._sessions[analyser._packages[0].digest]
    run: Callable[[Any], Any] = session.run
    first_of_all = iter([np.nan])

    def poisoned(images: Any) -> Any:
        outputs = run(images)
        outputs.scores[0, 3, 0] = next(first_of_all, outputs.scores[0, 3, 0])
        return outputs

    session.run = poisoned  # type: ignore[method-assign]
    first, second = analyse(analyser, tmp_path, make_dx(BRIGHT), make_dx(BRIGHT))
    assert (first.status, first.reason_code) == (ResultStatus.FAILED, "output_not_finite")
    assert (first.priority, first.findings) == (TriagePriority.NOT_ASSESSED, ())
    assert second.status is ResultStatus.ANALYSED


def test_each_package_says_its_own_word(make_analyser: MakeAnalyser, tmp_path: Path) -> None:
    analyser = make_analyser(
        packages=[
            {"name": "children"},
            {"name": "all-ages", "reads": {"ages_years": None}, "labels": [label("tumour"), label("normal")]},
            {"name": "hands", "reads": {"body_parts": ["HAND"]}},
        ]
    )
    (looked,) = analyser.analyse([Source(write(make_dx(BRIGHT, PatientAge="050Y"), tmp_path / "x.dcm"))])
    said = {result.model.name: result for result in looked.results if result.model}
    assert set(said) == {"children", "all-ages"}
    assert said["children"].reason_code == "age_outside"
    assert [finding.label for finding in said["all-ages"].findings] == ["tumour"]


def test_a_picture_without_a_header_is_marked_unverified(make_analyser: MakeAnalyser, tmp_path: Path) -> None:
    analyser = make_analyser()
    Image.fromarray((BRIGHT // 16).astype(np.uint8)).save(tmp_path / "x.png")
    known, unknown = analyser.analyse(
        [Source(tmp_path / "x.png", "chest-xray", 3.0), Source(tmp_path / "x.png", "chest-xray")]
    )
    assert (known.results[0].status, known.results[0].unverified_input) == (ResultStatus.ANALYSED, True)
    assert (known.study_instance_uid, known.modality) == (None, "DX")
    assert unknown.results[0].reason_code == "age_unknown"


def test_without_a_package_no_image_is_assessed_and_that_is_said(make_analyser: MakeAnalyser, tmp_path: Path) -> None:
    """A forgotten volume must not look like images that no model is meant for: those nobody hears of."""
    other = make_dx(Modality="US")
    results = analyse(make_analyser(packages=[]), tmp_path, make_dx(), other)
    for result in results:
        assert (result.status, result.reason_code) == (ResultStatus.NOT_ASSESSED, "no_model")
        assert (result.priority, result.reason) == (TriagePriority.NOT_ASSESSED, "No model is installed.")
        assert result.recommendations


def test_without_a_package_a_printout_beside_the_image_is_nobodys(make_analyser: MakeAnalyser, tmp_path: Path) -> None:
    printed = make_dx(ImageType=["DERIVED", "SECONDARY"])
    (result,) = analyse(make_analyser(packages=[]), tmp_path, printed)
    assert (result.status, result.reason_code) == (ResultStatus.NOT_APPLICABLE, "no_model")


def test_settings_of_the_site_reach_the_decision(make_analyser: MakeAnalyser, tmp_path: Path) -> None:
    analyser = make_analyser(
        packages=[{"model": tiny_model(offset=3.0)}], decide=DecideSettings(thresholds={"pneumonia": 0.999})
    )
    (result,) = analyse(analyser, tmp_path, make_dx(DARK))
    assert not result.findings[0].present
    assert result.findings[0].operating_point == 0.999


def test_no_text_says_the_word_that_is_never_said(make_analyser: MakeAnalyser, tmp_path: Path) -> None:
    analyser = make_analyser(packages=[{"labels": [label("normal"), label("pneumonia")]}])
    results = analyse(analyser, tmp_path, make_dx(BRIGHT), make_dx(DARK), make_dx(Modality="CT"), make_dx(Rows=9))
    for result in results:
        words = [result.reason, *result.recommendations, *(f.label + f.code.meaning for f in result.findings)]
        assert "normal" not in " ".join(words).lower().replace("abnormal", "")


def test_logs_hold_no_name_and_no_id(
    make_analyser: MakeAnalyser, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    analyser = make_analyser()
    bad = make_dx(PatientName="SENTINEL^A", PatientID="SENTINEL", StudyDescription="SENTINEL", Rows=3)
    results = analyse(analyser, tmp_path, bad)
    out, err = capfd.readouterr()
    assert "SENTINEL" not in out + err + caplog.text + repr(results)
