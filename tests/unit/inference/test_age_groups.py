"""Whom a package is validated for; each group of ages has its own operating point and its own right to alarm."""

from pathlib import Path
from typing import Any, Literal

import pytest

from inference.errors import CannotLook
from inference.gate import age_words, check_header
from inference.header import HeaderFacts
from inference.manifest import Manifest, parse_manifest, read_manifest
from tests.support.packages import label, write_package


def group(name: str, ages: tuple[float, float], threshold: float, may_raise: bool) -> dict[str, Any]:
    return {"name": name, "ages_years": ages, "labels": [label(threshold=threshold)], "may_raise_priority": may_raise}


CHILDREN, ADULTS = group("children", (1, 6), 0.3, True), group("adults", (18, 120), 0.7, False)


def grouped(tmp_path: Path, *groups: dict[str, Any]) -> Manifest:
    whole = read_manifest(write_package(tmp_path)).model_dump(mode="json")
    whole["reads"]["ages_years"] = None
    return parse_manifest(Manifest.model_validate(whole | {"age_groups": list(groups)}).to_json().encode())


def asked(manifest: Manifest, age_years: float | None, unknown: Literal["refuse", "accept"] = "refuse") -> str:
    facts = HeaderFacts(modality="DX", has_pixels=True, rows=2000, columns=2000, age_years=age_years)
    try:
        check_header(facts, manifest, unknown)
    except CannotLook as refusal:
        return f"{refusal.reason_code}: {refusal.reason}"
    return "looks"


@pytest.mark.parametrize(("age", "threshold", "alarm"), [(3.0, 0.3, True), (64.0, 0.7, False)])
def test_a_patient_is_judged_by_the_figures_of_the_own_group(
    tmp_path: Path, age: float, threshold: float, alarm: bool
) -> None:
    manifest = grouped(tmp_path, CHILDREN, ADULTS)
    assert asked(manifest, age) == "looks"
    at_age = manifest.at_age(age)
    assert (at_age.labels[0].operating_point.threshold, at_age.may_raise_priority) == (threshold, alarm)


@pytest.mark.parametrize("age", [0.5, 6.0, 12.0, 17.9])
def test_nobody_is_read_between_the_groups(tmp_path: Path, age: float) -> None:
    said = asked(grouped(tmp_path, CHILDREN, ADULTS), age)
    assert said.startswith("age_outside")
    assert "1 to below 6 years or 18 years and older" in said


def test_of_an_unknown_age_no_alarm_is_raised_unless_every_group_may(tmp_path: Path) -> None:
    manifest = grouped(tmp_path, CHILDREN, ADULTS)
    assert asked(manifest, None).startswith("age_unknown")
    assert asked(manifest, None, "accept") == "looks"
    assert not manifest.at_age(None).may_raise_priority
    assert manifest.at_age(None).labels == manifest.labels
    everybody = grouped(tmp_path / "everybody", CHILDREN, ADULTS | {"may_raise_priority": True})
    assert everybody.at_age(None).may_raise_priority


def test_a_package_without_groups_is_the_same_at_every_age(tmp_path: Path) -> None:
    manifest = read_manifest(write_package(tmp_path))
    assert manifest.at_age(3.0) is manifest
    assert age_words(()) == "any age"


@pytest.mark.parametrize(
    ("groups", "why"),
    [
        ((CHILDREN, group("more", (5, 9), 0.5, True)), "overlap"),
        ((CHILDREN | {"labels": [label("fracture")]},), "same order"),
        ((group("nobody", (6, 6), 0.5, True),), "rise"),
    ],
)
def test_groups_that_contradict_are_refused(tmp_path: Path, groups: tuple[dict[str, Any], ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        grouped(tmp_path, *groups)


def test_a_range_and_groups_at_once_are_refused(tmp_path: Path) -> None:
    whole = grouped(tmp_path, CHILDREN).model_dump(mode="json")
    whole["reads"]["ages_years"] = [1, 6]
    with pytest.raises(ValueError, match="not both"):
        Manifest.model_validate(whole)
