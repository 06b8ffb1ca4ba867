"""From passes to findings, from findings to a priority; routing and the gate."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.settings import DecideSettings, LookSettings, RecommendSettings
from inference.decide import decide, priority_of
from inference.distribution import FeatureDistribution, dump_distribution, load_distribution
from inference.doubt import mutual_information
from inference.errors import CannotLook
from inference.findings import calibrate, findings_of, grid_box
from inference.gate import check_features, check_header, check_pixels
from inference.header import HeaderFacts
from inference.manifest import Calibration, Manifest
from inference.package import Package, load_packages
from inference.route import route
from ledger.records import Code, Finding, TriagePriority
from tests.support.packages import GRID, PASSES, label, mid_grey, write_package

SETTINGS = DecideSettings()
HIGH, MEDIUM, LOW = TriagePriority.HIGH, TriagePriority.MEDIUM, TriagePriority.LOW
CHEST = HeaderFacts(
    modality="DX", body_part="CHEST", view="PA", age_years=3.0, has_pixels=True, rows=500, columns=400,
    image_type=("ORIGINAL", "PRIMARY"),
)  # fmt: skip


def manifest(tmp_path: Path, **options: Any) -> Manifest:
    return package(tmp_path, **options).manifest


def package(tmp_path: Path, **options: Any) -> Package:
    write_package(tmp_path, **options)
    return load_packages(LookSettings(models_dir=tmp_path))[0]


def finding(name: str, probability: float, point: float = 0.5, high: float = 0.8, sd: float = 0.0) -> Finding:
    from inference.decide import in_doubt

    return Finding(
        label=name, code=Code("1", "99TEST", name), score=probability, probability=probability, probability_sd=sd,
        mutual_information=0.0, present=probability >= point, in_doubt=in_doubt(probability, sd, point, SETTINGS),
        operating_point=point, high_operating_point=high,
    )  # fmt: skip


def passes(probability: float, spread: float = 0.0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.linspace(probability - spread, probability + spread, PASSES, dtype=np.float32)[:, np.newaxis]


# --- findings


def test_each_pass_is_calibrated_before_the_mean_and_the_sd() -> None:
    scores = np.array([0.2, 0.9], np.float32)
    calibration = Calibration(method="temperature", temperature=2.0, bias=0.5)
    expected = [1 / (1 + math.exp(-(math.log(s / (1 - s)) / 2 + 0.5))) for s in (0.2, 0.9)]
    assert calibrate(scores, calibration) == pytest.approx(expected, abs=1e-6)


def test_scores_of_zero_and_one_stay_numbers() -> None:
    assert np.isfinite(calibrate(np.array([0.0, 1.0], np.float32), Calibration())).all()


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=50))
def test_mutual_information_lies_between_nothing_and_ln_2(values: list[float]) -> None:
    assert 0.0 <= mutual_information(np.array(values)) <= math.log(2) + 1e-6


def test_mutual_information_is_what_the_passes_disagree_about() -> None:
    assert mutual_information(np.array([0.5, 0.5])) == pytest.approx(0.0)
    assert mutual_information(np.array([0.0, 1.0])) == pytest.approx(math.log(2), abs=1e-5)


def test_a_finding_carries_its_numbers(tmp_path: Path) -> None:
    (found,) = findings_of(passes(0.6, 0.1), np.ones((1, GRID, GRID)), manifest(tmp_path), SETTINGS, (100, 50))
    assert found.probability == pytest.approx(0.6)
    assert found.probability_sd == pytest.approx(float(np.linspace(0.5, 0.7, PASSES).std()), abs=1e-6)
    assert found.present
    assert found.activation is not None
    assert found.activation.box == (0.0, 0.0, 100.0, 50.0)
    assert (len(found.activation.values), len(found.activation.values[0])) == (GRID, GRID)


def test_the_class_that_says_nothing_is_wrong_never_becomes_a_finding(tmp_path: Path) -> None:
    two = manifest(tmp_path, labels=[label("normal"), label("pneumonia")])
    scores = np.concatenate([passes(0.99), passes(0.01)], axis=1)
    assert [f.label for f in findings_of(scores, np.ones((2, 7, 7)), two, SETTINGS, (9, 9))] == ["pneumonia"]


def test_other_abnormality_is_what_the_internal_class_leaves_over_where_the_site_wants_it(tmp_path: Path) -> None:
    two = manifest(tmp_path, labels=[label("normal"), label("pneumonia")])
    scores = np.concatenate([passes(0.2), passes(0.01)], axis=1)
    on = DecideSettings(other_abnormality=True)
    found = findings_of(scores, np.ones((2, 7, 7)), two, on, (9, 9))
    assert next((f.label, f.present, round(f.probability, 6)) for f in found) == ("other_abnormality", True, 0.8)


def test_a_sites_threshold_replaces_the_packages(tmp_path: Path) -> None:
    (found,) = findings_of(
        passes(0.3), np.ones((1, 7, 7)), manifest(tmp_path), DecideSettings(thresholds={"pneumonia": 0.25}), (9, 9)
    )
    assert found.present
    assert found.operating_point == 0.25


@pytest.mark.parametrize(
    ("shape", "box"),
    [((100, 100), (0, 0, 100, 100)), ((100, 200), (-50, 0, 150, 200)), ((200, 100), (0, -50, 200, 150))],
)
def test_a_letterboxed_grid_reaches_beyond_the_image(tmp_path: Path, shape: tuple[int, int], box: Any) -> None:
    spec = manifest(tmp_path, input_spec={"fit": "letterbox"}).input
    assert grid_box(spec, shape) == pytest.approx(box, abs=1e-6)


# --- priority


@pytest.mark.parametrize(
    ("found", "priority"),
    [
        (finding("pneumonia", 0.95), HIGH),
        (finding("pneumonia", 0.80), HIGH),
        (finding("pneumonia", 0.79), MEDIUM),
        (finding("pneumonia", 0.50), MEDIUM),
        (finding("pneumonia", 0.41), MEDIUM),  # absent, close below its operating point
        (finding("pneumonia", 0.39), LOW),
        (finding("pneumonia", 0.10, sd=0.16), MEDIUM),  # the passes disagree
        (finding("pneumonia", 0.10, sd=0.15), LOW),
        (finding("effusion", 0.99), MEDIUM),  # not critical
        (finding("pneumothorax", 0.9, point=0.95), MEDIUM),  # absent: in doubt, never HIGH
        (finding("tumour", 0.65, point=0.3, high=0.6), HIGH),
    ],
)
def test_the_priority_table(found: Finding, priority: TriagePriority) -> None:
    assert priority_of(found, SETTINGS) is priority


def test_the_top_label_never_hides_another_finding() -> None:
    found = (finding("effusion", 0.99), finding("pneumonia", 0.81))
    assert decide(found, "CHEST", True, SETTINGS, RecommendSettings()).priority is HIGH


def test_a_present_finding_is_never_below_medium() -> None:
    lax = DecideSettings(present_priority="MEDIUM", critical_priority="MEDIUM", doubt_priority="LOW")
    assert priority_of(finding("pneumonia", 0.99), lax) is MEDIUM
    assert priority_of(finding("pneumonia", 0.45), lax) is LOW


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 0.5))
def test_more_probable_is_never_less_urgent(a: float, b: float, sd: float) -> None:
    low, high = (priority_of(finding("pneumonia", p, sd=sd), SETTINGS) for p in sorted((a, b)))
    assert high.rank <= low.rank


def test_a_package_without_a_measured_specificity_raises_no_alarm() -> None:
    decision = decide((finding("pneumonia", 0.99),), "CHEST", False, SETTINGS, RecommendSettings())
    assert (decision.priority, decision.critical_flags) == (LOW, ())


@pytest.mark.parametrize(
    ("found", "part", "flags"),
    [
        (finding("pneumonia", 0.86), "CHEST", ("RESPIRATORY_EMERGENCY",)),
        (finding("pneumonia", 0.85), "CHEST", ()),
        (finding("pneumothorax", 0.9), None, ("RESPIRATORY_EMERGENCY",)),
        (finding("fracture", 0.9), "CSPINE", ("NEUROLOGICAL_RISK",)),
        (finding("fracture", 0.9), "WRIST", ()),
        (finding("fracture", 0.9), None, ()),
        (finding("tumour", 0.9), "SPINE", ()),
    ],
)
def test_critical_flags(found: Finding, part: str | None, flags: tuple[str, ...]) -> None:
    assert decide((found,), part, True, SETTINGS, RecommendSettings()).critical_flags == flags


def test_recommendations_are_the_sites_own_words_once_each() -> None:
    words = RecommendSettings(high="Soon.", present={"pneumonia": "Look again.", "tumour": "Soon."}, doubt="Unsure.")
    found = (finding("pneumonia", 0.9), finding("tumour", 0.7), finding("effusion", 0.45))
    assert decide(found, None, True, SETTINGS, words).recommendations == ("Soon.", "Look again.", "Unsure.")
    assert decide((finding("pneumonia", 0.1),), None, True, SETTINGS, words).recommendations == ()


# --- routing


@pytest.mark.parametrize(
    ("change", "reason_code"),
    [
        ({"modality": "CT"}, "modality_not_read"),
        ({"modality": None}, "modality_not_read"),
        ({"body_part": "HAND"}, "body_part_not_read"),
        ({"view": "LATERAL"}, "view_not_read"),
        ({"view": "OBLIQUE"}, "view_not_read"),
    ],
)
def test_what_no_package_is_meant_for_is_not_routed(tmp_path: Path, change: dict[str, Any], reason_code: str) -> None:
    routing = route(replace(CHEST, **change), (package(tmp_path),))
    assert routing.packages == ()
    assert routing.otherwise.reason_code == reason_code


@pytest.mark.parametrize("change", [{}, {"view": None}, {"view": "FRONTAL"}, {"body_part": None}, {"age_years": None}])
def test_what_the_header_does_not_say_keeps_nobody_away(tmp_path: Path, change: dict[str, Any]) -> None:
    assert len(route(replace(CHEST, **change), (package(tmp_path),)).packages) == 1


PACKED = replace(
    CHEST,
    modality="OT",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
    photometric="MONOCHROME2",
    body_part_source="BodyPartExamined",
)


@pytest.mark.parametrize("change", [{}, {"modality": None}, {"sop_class_uid": "1.2.840.10008.5.1.4.1.1.7.3"}])
def test_a_radiograph_packed_as_a_secondary_capture_is_looked_at(tmp_path: Path, change: dict[str, Any]) -> None:
    assert len(route(replace(PACKED, **change), (package(tmp_path),)).packages) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"modality": "CT"},
        {"body_part": "HAND"},
        {"body_part": None, "body_part_source": ""},
        {"body_part_source": "StudyDescription"},  # of a page that lies in the study of a chest CT
        {"photometric": "RGB"},
        {"sop_class_uid": "1.2.840.10008.5.1.4.1.1.2"},
        {"image_type": ("DERIVED", "SECONDARY")},
        {"view": "LATERAL"},
    ],
)
def test_other_secondary_captures_are_nobodys(tmp_path: Path, change: dict[str, Any]) -> None:
    assert route(replace(PACKED, **change), (package(tmp_path),)).packages == ()


def test_a_model_of_slices_reads_no_secondary_capture(tmp_path: Path) -> None:
    assert route(PACKED, (package(tmp_path, reads={"modalities": ["MR"]}),)).packages == ()


def test_every_package_that_is_meant_for_it_looks_and_no_other(tmp_path: Path) -> None:
    write_package(tmp_path, name="hands", reads={"body_parts": ["HAND"]})
    write_package(tmp_path, name="adults", reads={"ages_years": None})
    write_package(tmp_path)
    packages = load_packages(LookSettings(models_dir=tmp_path))
    assert [p.manifest.name for p in route(CHEST, packages).packages] == ["adults", "tiny-chest"]
    assert route(CHEST, ()).otherwise.reason_code == "no_model"


# --- gate


@pytest.mark.parametrize(
    ("change", "reason_code"),
    [
        ({"age_years": None}, "age_unknown"),
        ({"age_years": 0.99}, "age_outside"),
        ({"age_years": 6.0}, "age_outside"),
        ({"for_processing": True}, "for_processing"),
        ({"rows": 127}, "too_small"),
        ({"has_pixels": False}, "no_pixel_data"),
        ({"malformed": "Rows must have one value"}, "header_malformed"),
    ],
)
def test_the_gate_says_why(tmp_path: Path, change: dict[str, Any], reason_code: str) -> None:
    with pytest.raises(CannotLook) as refusal:
        check_header(replace(CHEST, **change), manifest(tmp_path), "refuse")
    assert refusal.value.reason_code == reason_code
    assert refusal.value.reason.endswith(".")


@pytest.mark.parametrize(
    "change", [{}, {"age_years": 1.0}, {"age_years": 5.999}, {"image_type": ("DERIVED", "PRIMARY")}, {"rows": 128}]
)
def test_the_gate_lets_eligible_images_through(tmp_path: Path, change: dict[str, Any]) -> None:
    check_header(replace(CHEST, **change), manifest(tmp_path), "refuse")


def test_a_site_may_accept_an_unknown_age_but_never_a_wrong_one(tmp_path: Path) -> None:
    children = manifest(tmp_path)
    check_header(replace(CHEST, age_years=None), children, "accept")
    with pytest.raises(CannotLook, match="age_outside"):
        check_header(replace(CHEST, age_years=40.0), children, "accept")


def test_one_grey_is_not_an_image() -> None:
    check_pixels(0.5)
    with pytest.raises(CannotLook, match="constant_pixels"):
        check_pixels(0.0)


@pytest.mark.parametrize("distance", [9.1, float("inf"), float("nan")])
def test_features_far_away_are_refused_and_so_is_no_number(tmp_path: Path, distance: float) -> None:
    gated = manifest(tmp_path, gate_threshold=9.0)
    check_features(8.9, gated)
    with pytest.raises(CannotLook, match="outside_distribution"):
        check_features(distance, gated)


def test_the_distance_joins_what_lies_inside_and_outside_of_the_subspace() -> None:
    space = FeatureDistribution(
        np.array([1.0, 1.0, 1.0], np.float32), np.eye(2, 3, dtype=np.float32), np.array([2.0, 1.0], np.float32), 0.5
    )
    features = np.array([[1, 1, 1], [3, 1, 1], [1, 1, 2]], np.float32)
    assert space.distance(features) == pytest.approx([0.0, math.sqrt(0.5), 2.0])


def test_a_distribution_survives_its_file() -> None:
    features = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    again = load_distribution(dump_distribution(mid_grey()))
    assert np.allclose(again.distance(features), mid_grey().distance(features))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04}"])
def test_what_is_no_distribution_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"gate|pickled"):
        load_distribution(content)
