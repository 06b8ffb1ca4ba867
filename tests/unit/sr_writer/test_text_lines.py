"""The lines of the text report: whole sentences that fit a viewer and say in a reader's words of which image."""

from dataclasses import replace

import pytest
from pydicom.dataset import Dataset

from config.settings import ReportSettings, Settings
from ledger.records import Finding, Region, TriagePriority
from ledger.store import Store
from sr_writer.text_report import LINE_LENGTH
from tests.support.dx import make_dx
from tests.support.findings import MODEL, analysed, finding, flagged_study, keep, new_store, not_assessed, study
from tests.unit.sr_writer.test_result_objects import build, read, values

BLIND = replace(
    MODEL,
    uncertainty="sd over 50 masked heads on one pass of the features, after calibrating each; "
    "blind to the backbone's own uncertainty",
)
BOXES = Settings(report=ReportSettings(localization="box"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return new_store(tmp_path_factory.mktemp("results"))


def lines(
    store: Store, *images: Dataset, said: Finding | None = None, priority: TriagePriority = TriagePriority.HIGH
) -> list[str]:
    """Of the findings, each image with the same result."""
    result = analysed(said or finding(), priority=priority)
    for image in images:
        image.StudyInstanceUID = images[0].StudyInstanceUID
    made = build(study(*((keep(image, store), [result]) for image in images)), store, BOXES)
    return values(read(made, "text_sr"), "121071")


def test_an_image_is_named_by_its_view(store: Store) -> None:
    said = lines(store, make_dx(ViewPosition="PA"), make_dx(ViewPosition="AP"))
    named = {line.split("(", 1)[1][:17] for line in said if "FLAGGED" in line}
    assert named in ({"image 1 of 2: PA)", "image 2 of 2: AP)"}, {"image 1 of 2: AP)", "image 2 of 2: PA)"})
    assert not any("2.25." in line for line in said)


def test_images_of_the_same_view_are_named_by_their_place_in_the_series_list(store: Store) -> None:
    said = lines(store, *(make_dx(ViewPosition="PA", SeriesNumber=2, InstanceNumber=i) for i in (1, 2)))
    assert {line.split(": ")[2] for line in said if "FLAGGED" in line} == {"PA, Se 2, Im 1).", "PA, Se 2, Im 2)."}


def test_an_image_whose_header_says_nothing_is_named_by_its_number_alone(store: Store) -> None:
    bare = dict.fromkeys(("ViewPosition", "SeriesNumber", "InstanceNumber"))
    said = lines(store, make_dx(**bare), make_dx(**bare))
    assert any(line.startswith("Pneumonia: FLAGGED (image 2 of 2).") for line in said)


def test_an_image_that_cannot_be_judged_is_named_too(store: Store) -> None:
    first, second = make_dx(ViewPosition="PA"), make_dx(ViewPosition="AP")
    second.StudyInstanceUID = first.StudyInstanceUID
    made = build(study((keep(first, store), [analysed()]), (keep(second, store), [not_assessed()])), store)
    findings = values(read(made, "text_sr"), "121071")
    assert "Cannot assess (image 2 of 2: AP): the patient's age is unknown" in findings


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("said", [finding(probability=0.9996, sd=0.0001), finding(in_doubt=True, probability=0.52)])
@pytest.mark.parametrize("priority", [TriagePriority.HIGH, TriagePriority.LOW])
def test_every_line_of_a_finding_fits_and_is_whole(
    store: Store, images: int, said: Finding, priority: TriagePriority
) -> None:
    boxed = replace(said, regions=(Region((1.0, 1.0, 9.0, 9.0), 0.9), Region((9.0, 9.0, 19.0, 19.0), 0.8)))
    sources = [make_dx(ViewPosition="PA", SeriesNumber=2, InstanceNumber=i) for i in range(images)]
    found = [line for line in lines(store, *sources, said=boxed, priority=priority) if line.startswith("Pneumonia")]
    assert all(line.endswith(".") and len(line) <= LINE_LENGTH for line in found), found
    for number in range(1, images + 1):
        mine = " ".join(line for line in found if images == 1 or f"image {number} of" in line)
        assert "robability" in mine
        assert "operating point" in mine
        assert "2 boxes in the measurement report" in mine


def test_what_the_sd_is_is_told_in_whole_sentences_that_fit(store: Store) -> None:
    findings = values(read(build(flagged_study(store, model=BLIND), store), "text_sr"), "121071")
    said = [line for line in findings if "masked heads" in line or "blind" in line]
    assert said == [
        "±: sd over 50 masked heads on one pass of the features, after calibrating each.",
        "±: blind to the backbone's own uncertainty.",
    ]
    assert all(len(line) <= LINE_LENGTH for line in said)


def test_of_several_models_each_sd_names_its_own(store: Store) -> None:
    source = make_dx()
    other = replace(BLIND, name="another", digest="cd" * 32, uncertainty="sd over 9 passes")
    kept = keep(source, store)
    findings = study((kept, [analysed(model=BLIND), analysed(model=other)]))
    told = values(read(build(findings, store), "text_sr"), "121071")
    assert "± of chest-pneumonia: blind to the backbone's own uncertainty." in told
    assert "± of another: sd over 9 passes." in told
