"""Several packages over the same images; doubt, age and restarts: what each may and may not change."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config.settings import LookSettings, Settings
from inference.analyser import Analyser, Source
from inference.package import load_packages
from ledger.records import ImageResult, ResultStatus, TriagePriority
from tests.integration.inference.conftest import MakeAnalyser
from tests.integration.inference.test_analyser import BRIGHT, DARK, analyse
from tests.support.dx import make_dx, write
from tests.support.packages import label, tiny_model, write_ensemble

GREY = np.full((256, 256), 2048, np.uint16)
GREY[:4] = 1900
NOWHERE = dict.fromkeys(("BodyPartExamined", "AnatomicRegionSequence", "SeriesDescription", "StudyDescription"))


def rule(threshold: float, by: str = "sd") -> dict[str, Any]:
    return {"abstention": {"by": by, "threshold": threshold, "coverage": 0.95, "text": "tests"}}


# --- one package never stops another


def test_each_series_goes_to_every_package_that_reads_it_whatever_the_others_do(
    make_analyser: MakeAnalyser, tmp_path: Path
) -> None:
    """One package raises, one returns NaN for these very pictures, one answers, one is for hands."""
    analyser = make_analyser(
        packages=[
            {"name": "answers"},
            {"name": "hands", "reads": {"body_parts": ["HAND"]}},
            {"name": "nan", "model": tiny_model(scores="nan_when_bright")},
            {"name": "raises"},
        ]
    )
    raises = next(p for p in analyser._packages if p.manifest.name == "raises")
    analyser._sessions[raises.digest].run = lambda images: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    sources = [Source(write(make_dx(pixels), tmp_path / f"{i}.dcm")) for i, pixels in enumerate((BRIGHT, DARK))]
    bright, dark = (
        {result.model.name: result for result in looked.results if result.model} for looked in analyser.analyse(sources)
    )
    for said in (bright, dark):
        assert set(said) == {"answers", "nan", "raises"}
        assert (said["raises"].status, said["raises"].reason_code) == (ResultStatus.FAILED, "internal_error")
        assert said["answers"].status is ResultStatus.ANALYSED
    assert bright["answers"].priority is TriagePriority.HIGH
    assert (bright["nan"].status, bright["nan"].reason_code) == (ResultStatus.FAILED, "output_not_finite")
    assert bright["nan"].findings == ()
    assert dark["nan"].status is ResultStatus.ANALYSED


# --- the same image, the same numbers


def test_the_same_image_gets_the_same_bits_alone_in_a_batch_twice_and_after_a_restart(tmp_path: Path) -> None:
    root = tmp_path / "models"
    write_ensemble(root, [tiny_model(), tiny_model(offset=0.3)], input_spec={"test_time": ["as_is", "mirrored", "up"]})
    path = write(make_dx(), tmp_path / "x.dcm")
    others = [write(make_dx(pixels), tmp_path / f"{i}.dcm") for i, pixels in enumerate((BRIGHT, DARK, BRIGHT))]

    def said(analyser: Analyser, *paths: Path) -> list[ImageResult]:
        return [looked.results[0] for looked in analyser.analyse([Source(p) for p in paths])]

    look = LookSettings(models_dir=root, threads=1, batch_max=4, provider="cpu")
    findings = []
    for _ in range(2):
        analyser = Analyser(Settings(look=look), load_packages(look), children=1)
        try:
            alone, again = said(analyser, path)[0], said(analyser, path)[0]
            crowd = said(analyser, *others, path, *others)[3]
        finally:
            analyser.close()
        findings += [alone.findings, again.findings, crowd.findings]
    assert findings[0]
    assert all(one == findings[0] for one in findings)


# --- abstention


def test_a_doubtful_nothing_found_is_not_assessed_and_says_so(make_analyser: MakeAnalyser, tmp_path: Path) -> None:
    analyser = make_analyser(packages=[{"model": tiny_model(offset=-2.0, spread=0.4), **rule(0.0)}])
    (result,) = analyse(analyser, tmp_path, make_dx(GREY))
    assert (result.status, result.reason_code) == (ResultStatus.NOT_ASSESSED, "abstained")
    assert result.priority is TriagePriority.NOT_ASSESSED
    assert "cannot assess" in result.reason
    assert not result.findings[0].present
    assert result.recommendations == ("The model could not look at this image: read as without triage.",)


def test_a_doubtful_high_stays_high_and_is_marked(make_analyser: MakeAnalyser, tmp_path: Path) -> None:
    sure = make_analyser()
    doubtful = make_analyser(packages=[rule(0.0)])
    (plain,) = analyse(sure, tmp_path, make_dx(BRIGHT))
    (result,) = analyse(doubtful, tmp_path, make_dx(BRIGHT))
    assert (result.status, result.priority) == (ResultStatus.ANALYSED, TriagePriority.HIGH)
    assert (plain.findings[0].in_doubt, result.findings[0].in_doubt) == (False, True)
    assert result.critical_flags == plain.critical_flags


def test_a_finding_of_a_package_that_raises_nothing_is_not_withdrawn_by_doubt(
    make_analyser: MakeAnalyser, tmp_path: Path
) -> None:
    analyser = make_analyser(packages=[{**rule(0.0), "may_raise_priority": False}])
    (result,) = analyse(analyser, tmp_path, make_dx(BRIGHT))
    assert (result.status, result.findings[0].present) == (ResultStatus.ANALYSED, True)


def test_what_is_certain_enough_is_answered(make_analyser: MakeAnalyser, tmp_path: Path) -> None:
    (result,) = analyse(make_analyser(packages=[rule(0.4)]), tmp_path, make_dx(DARK))
    assert (result.status, result.priority) == (ResultStatus.ANALYSED, TriagePriority.LOW)


# --- age groups


@pytest.mark.parametrize(("age", "reason_code"), [("003Y", ""), ("012Y", "age_outside"), ("040Y", "")])
def test_an_image_of_unknown_body_part_outside_every_age_group_is_refused_and_not_a_failure(
    make_analyser: MakeAnalyser, tmp_path: Path, age: str, reason_code: str
) -> None:
    groups = [
        {"name": name, "ages_years": ages, "labels": [label()], "may_raise_priority": True}
        for name, ages in (("children", (1, 6)), ("adults", (18, 90)))
    ]
    described = {"gate_threshold": 9.0, "age_groups": groups, "reads": {"ages_years": None}}
    (result,) = analyse(make_analyser(packages=[described]), tmp_path, make_dx(GREY, PatientAge=age, **NOWHERE))
    assert result.reason_code == reason_code
    assert result.status is (ResultStatus.NOT_ASSESSED if reason_code else ResultStatus.ANALYSED)


def test_an_answer_says_which_age_group_it_is_of_and_whether_that_may_raise(
    make_analyser: MakeAnalyser, tmp_path: Path
) -> None:
    groups = [
        {"name": name, "ages_years": ages, "labels": [label()], "may_raise_priority": name == "children"}
        for name, ages in (("children", (1, 6)), ("adults", (18, 90)))
    ]
    analyser = make_analyser(packages=[{"age_groups": groups, "reads": {"ages_years": None}}])
    said = [analyse(analyser, tmp_path, make_dx(BRIGHT, PatientAge=age))[0] for age in ("003Y", "040Y")]
    assert [(one.age_group, one.may_raise) for one in said] == [("children", True), ("adults", False)]
    assert [one.priority is TriagePriority.LOW for one in said] == [False, True]


def test_entropy_stands_beside_the_other_figures(make_analyser: MakeAnalyser, tmp_path: Path) -> None:
    (result,) = analyse(make_analyser(), tmp_path, make_dx(GREY))
    p = result.findings[0].probability
    assert result.findings[0].entropy == pytest.approx(-p * np.log(p) - (1 - p) * np.log(1 - p))
