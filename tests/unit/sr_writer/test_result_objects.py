"""What the three objects say, element by element."""

import dataclasses
import re
from collections.abc import Iterator
from datetime import datetime
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from config.settings import DecideSettings, ReportSettings, Settings
from ledger.records import ReportKind, ResultObject, SentReference, StudyFindings, TriagePriority
from ledger.store import Store
from sr_writer.build import build_objects
from sr_writer.errors import NothingToSay, SourceUnreadable
from tests.support.dx import make_dx
from tests.support.findings import (
    OTHER_MODEL,
    REPORTED_AT,
    analysed,
    finding,
    flagged_study,
    keep,
    new_store,
    not_assessed,
    picture,
    preferred,
    study,
)

HIGH, MEDIUM, LOW = TriagePriority.HIGH, TriagePriority.MEDIUM, TriagePriority.LOW


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path)


def build(findings: StudyFindings, store: Store, settings: Settings | None = None) -> list[ResultObject]:
    return preferred(build_objects(findings, store, settings or Settings(), "2.25.7", "generic-pacs"))


def read(made: list[ResultObject], kind: str) -> Dataset:
    return dcmread(BytesIO(next(item.content for item in made if item.kind == kind)))


def items(node: Dataset) -> Iterator[Dataset]:
    for child in node.get("ContentSequence", []):
        yield child
        yield from items(child)


def values(ds: Dataset, code: str) -> list[str]:
    """Value of every content item with this concept name."""
    found = []
    for item in items(ds):
        if item.get("ConceptNameCodeSequence") and item.ConceptNameCodeSequence[0].CodeValue == code:
            if item.ValueType == "CODE":
                found.append(str(item.ConceptCodeSequence[0].CodeValue))
            elif item.ValueType == "NUM":
                found.append(str(item.MeasuredValueSequence[0].NumericValue))
            elif item.ValueType == "TEXT":
                found.append(str(item.TextValue))
    return found


def all_text(ds: Dataset) -> Iterator[str]:
    for element in ds.iterall():
        if element.VR in ("LO", "SH", "ST", "LT", "UT", "UC", "PN", "CS"):
            yield str(element.value)


def unflagged(store: Store) -> StudyFindings:
    return study((keep(make_dx(), store), [analysed(finding(probability=0.12), priority=LOW, recommendations=())]))


def unassessed(store: Store) -> StudyFindings:
    return study((keep(make_dx(), store), [not_assessed()]))


def test_a_flagged_study_gets_every_kind_and_any_other_the_text(store: Store) -> None:
    flagged = build(flagged_study(store), store)
    assert [item.kind for item in flagged] == ["measurement_sr", "text_sr", "secondary_capture", "key_objects"]
    assert [item.kind for item in build(unflagged(store), store)] == ["text_sr"]
    assert [item.kind for item in build(unassessed(store), store)] == ["text_sr"]


def test_a_medium_study_is_flagged_too(store: Store) -> None:
    made = build(study((keep(make_dx(), store), [analysed(finding(probability=0.6), priority=MEDIUM)])), store)
    assert len(made) == 3
    assert values(read(made, "measurement_sr"), "260870009") == ["103391001"]
    assert read(made, "text_sr").SeriesDescription == "AI TRIAGE MEDIUM: report (research)"


def test_the_same_input_gives_the_same_bytes(store: Store) -> None:
    findings = flagged_study(store)
    first, second = build(findings, store), build(findings, store)
    assert [item.content for item in first] == [item.content for item in second]


def test_every_object_is_its_own_series_in_the_sources_study(store: Store) -> None:
    findings = flagged_study(store)
    made = build(findings, store)
    headers = [read(made, item.kind) for item in made]
    assert {str(ds.StudyInstanceUID) for ds in headers} == {findings.study_instance_uid}
    assert len({str(ds.SeriesInstanceUID) for ds in headers}) == 4
    assert [int(ds.SeriesNumber) for ds in headers] == [9901, 9907, 9902, 9903]
    for item, ds in zip(made, headers, strict=True):
        names = (item.sop_class_uid, item.sop_instance_uid, item.series_instance_uid, item.transfer_syntax_uid)
        own = (ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.file_meta.TransferSyntaxUID)
        assert names == tuple(map(str, own))


def test_shared_headers(store: Store) -> None:
    source = make_dx()
    for item in (made := build(flagged_study(store, source), store)):
        ds = read(made, item.kind)
        assert ds.SpecificCharacterSet == "ISO_IR 192"
        assert ds.ContentQualification == "RESEARCH"
        assert (ds.PatientName, ds.PatientID, ds.AccessionNumber) == ("Invented^Child", "TEST-0001", "A1")
        assert (ds.Manufacturer, ds.ManufacturerModelName) == ("OpenTriage", "OpenTriage node")
        assert "(research)" in ds.SeriesDescription
        assert ds.SeriesDescription.startswith("AI TRIAGE HIGH:")
        assert ds.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "109102"


def test_times_are_the_reports_on_the_sources_clock(store: Store) -> None:
    made = build(flagged_study(store, make_dx(TimezoneOffsetFromUTC="-0200")), store)
    for item in made:
        ds = read(made, item.kind)
        for name in ("Content", "Series", "InstanceCreation"):
            assert (ds[f"{name}Date"].value, ds[f"{name}Time"].value) == ("20261120", "010405.678901")
        assert ds.ContributingEquipmentSequence[0].ContributionDateTime == "20261120010405.678901-0200"
    assert REPORTED_AT.hour == 3


def test_an_offset_that_the_source_does_not_give_is_given_of_our_own_time_alone(store: Store) -> None:
    """Of the whole object it would shift the study's own times, which are copied as they stand."""
    source = make_dx(StudyTime="101112")
    del source.TimezoneOffsetFromUTC
    made = build(flagged_study(store, source), store)
    for item in made:
        ds = read(made, item.kind)
        assert ("TimezoneOffsetFromUTC" in ds, ds.StudyTime) == (False, "101112")
        said = datetime.strptime(ds.ContributingEquipmentSequence[0].ContributionDateTime, "%Y%m%d%H%M%S.%f%z")
        assert said == REPORTED_AT


def test_a_report_is_preliminary_unverified_and_complete(store: Store) -> None:
    made = build(flagged_study(store), store)
    for kind in ("measurement_sr", "text_sr"):
        ds = read(made, kind)
        assert (ds.PreliminaryFlag, ds.VerificationFlag, ds.CompletionFlag) == ("PRELIMINARY", "UNVERIFIED", "COMPLETE")


def test_a_provisional_report_is_partial(store: Store) -> None:
    findings = dataclasses.replace(flagged_study(store), kind=ReportKind.PROVISIONAL)
    made = build(findings, store)
    assert {read(made, kind).CompletionFlag for kind in ("measurement_sr", "text_sr")} == {"PARTIAL"}
    assert any("Provisional" in text for text in values(read(made, "text_sr"), "121071"))


def test_a_report_that_could_not_see_everything_is_partial(store: Store) -> None:
    first, second = make_dx(), make_dx()
    second.StudyInstanceUID = first.StudyInstanceUID
    made = build(study((keep(first, store), [analysed()]), (keep(second, store), [not_assessed()])), store)
    text = read(made, "text_sr")
    assert text.CompletionFlag == "PARTIAL"
    assert any(line.startswith("Cannot assess (image 2 of 2") for line in values(text, "121071"))
    assert any("1 image could not be assessed" in line for line in values(text, "121073"))


def test_the_measurement_report_says_priority_and_numbers(store: Store) -> None:
    ds = read(build(flagged_study(store), store), "measurement_sr")
    assert ds.ConceptNameCodeSequence[0].CodeValue == "126000"
    assert ds.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert values(ds, "260870009") == ["394849002"]
    assert values(ds, "233604007") == ["52101004"]
    assert [float(v) for v in values(ds, "122157")] == [93.1]
    assert [float(v) for v in values(ds, "PROB_SD")] == [3.0]
    assert values(ds, "111001") == ["chest-pneumonia"]
    parameters = values(ds, "111002")
    for start in ("package-sha256=abab", "mc_dropout_passes=50", "operating_point=0.5", "calibration="):
        assert any(p.startswith(start) for p in parameters), start
    assert any("For research use only" in text for text in values(ds, "121106"))


def test_the_report_says_what_computed_the_numbers_and_whether_that_was_second_choice(store: Store) -> None:
    made = build(flagged_study(store), store)
    parameters = values(read(made, "measurement_sr"), "111002")  # Algorithm Parameters
    assert {"provider=cpu float32", "degraded=yes"} <= set(parameters)
    assert any("computed by cpu float32, because" in text for text in all_text(read(made, "text_sr")))


def test_the_first_choice_is_said_to_be_one(store: Store) -> None:
    result = dataclasses.replace(analysed(), computed_by="openvino bfloat16", degraded=False)
    made = build(study((keep(make_dx(), store), [result])), store)
    assert {"provider=openvino bfloat16", "degraded=no"} <= set(values(read(made, "measurement_sr"), "111002"))
    assert not any("computed by" in text for text in all_text(read(made, "text_sr")))


@pytest.mark.parametrize(("probability", "number"), [(0.9999998, "99.99"), (0.0000001, "0.01"), (0.931, "93.1")])
def test_no_number_states_a_certainty(store: Store, probability: float, number: str) -> None:
    said = [analysed(finding(probability=probability, present=True))]
    ds = read(build(study((keep(make_dx(), store), said)), store), "measurement_sr")
    assert values(ds, "122157") == [number]


def test_every_scored_label_is_present_absent_or_undetermined(store: Store) -> None:
    said = (finding(), finding("pneumothorax", 0.02), finding("normal", 0.9))
    ds = read(build(_flagged(store, *said), store), "measurement_sr")
    assert values(ds, "233604007") == ["52101004"]
    assert values(ds, "36118008") == ["272519000"]
    assert any("Pneumothorax: not flagged, probability 2.0 %" in text for text in values(ds, "121106"))
    doubtful = read(build(_flagged(store, finding(), finding("pneumothorax", 0.45)), store), "measurement_sr")
    assert values(doubtful, "36118008") == ["373068000"]


def _flagged(store: Store, *said: object) -> StudyFindings:
    return study((keep(make_dx(), store), [analysed(*said)]))  # type: ignore[arg-type]


def test_an_unjudged_image_leaves_absent_labels_undetermined(store: Store) -> None:
    first, second = make_dx(), make_dx()
    second.StudyInstanceUID = first.StudyInstanceUID
    said = analysed(finding(), finding("pneumothorax", 0.02))
    made = build(study((keep(first, store), [said]), (keep(second, store), [not_assessed()])), store)
    assert values(read(made, "measurement_sr"), "36118008") == ["373068000"]


def test_a_measurement_outlines_the_whole_image_twice(store: Store) -> None:
    """Once as the region, once under the first number: OHIF hydrates from that one."""
    source = make_dx()
    ds = read(build(flagged_study(store, source), store), "measurement_sr")
    regions = [item for item in items(ds) if item.ValueType == "SCOORD"]
    assert len(regions) == 2
    for region in regions:
        assert list(region.GraphicData) == [0, 0, 255, 0, 255, 255, 0, 255, 0, 0]
        image = region.ContentSequence[0]
        assert image.RelationshipType == "SELECTED FROM"
        assert image.ConceptNameCodeSequence[0].CodeValue == "111040"
        assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID


def test_several_models_each_sign_their_own_measurement(store: Store) -> None:
    results = [analysed(), analysed(finding("pneumothorax", 0.9), model=OTHER_MODEL)]
    ds = read(build(study((keep(make_dx(), store), results)), store), "measurement_sr")
    assert sorted(values(ds, "111001")) == ["chest-pneumonia", "chest-pneumothorax"]
    assert sorted(float(v) for v in values(ds, "122157")) == [90.0, 93.1]
    assert len(set(values(ds, "112039"))) == 2


def test_every_container_is_separate(store: Store) -> None:
    for kind in ("measurement_sr", "text_sr"):
        ds = read(build(flagged_study(store), store), kind)
        containers = [ds, *(item for item in items(ds) if item.ValueType == "CONTAINER")]
        assert {item.ContinuityOfContent for item in containers} == {"SEPARATE"}


def test_critical_flags_stay_out_of_dicom_unless_the_site_wants_them(store: Store) -> None:
    findings = flagged_study(store, critical_flags=("RESPIRATORY_EMERGENCY",))
    silent, loud = (
        build(findings, store),
        build(findings, store, Settings(decide=DecideSettings(critical_flags_in_dicom=True))),
    )
    for kind in ("measurement_sr", "text_sr"):
        assert not any("mergency" in text or "EMERGENCY" in text for text in all_text(read(silent, kind)))
        assert any("mergency" in text or "EMERGENCY" in text for text in all_text(read(loud, kind)))


def category(store: Store, mapped: dict[str, int], flags: bool = False, priority: TriagePriority = HIGH) -> list[str]:
    findings = study((keep(make_dx(), store), [analysed(priority=priority, critical_flags=("RESPIRATORY_EMERGENCY",))]))
    report = ReportSettings.model_validate({"acr_categories": mapped})
    settings = Settings(report=report, decide=DecideSettings(critical_flags_in_dicom=flags))
    return values(read(build(findings, store, settings), "measurement_sr"), "ACTIONABLE")


def test_an_acr_category_is_written_only_where_the_site_maps_it(store: Store) -> None:
    assert category(store, {}) == []
    assert category(store, {}, flags=True) == []
    assert category(store, {"HIGH": 2}) == ["RID49481"]
    assert category(store, {"HIGH": 2}, priority=MEDIUM) == []
    assert category(store, {"HIGH": 1, "MEDIUM": 3}, priority=MEDIUM) == ["RID49482"]
    assert category(store, {"critical": 1, "HIGH": 2}) == ["RID49481"]  # the site lets no flag into DICOM
    assert category(store, {"critical": 1, "HIGH": 2}, flags=True) == ["RID49480"]


def test_the_text_report_says_it_all_in_flat_lines(store: Store) -> None:
    ds = read(build(flagged_study(store), store), "text_sr")
    assert (ds.ConceptNameCodeSequence[0].CodeValue, ds.Modality) == ("18748-4", "SR")
    impressions = values(ds, "121073")
    assert impressions[0] == "AI PRIORITY: HIGH"
    assert impressions[1] == "Pneumonia 93.1 % ± 3.0 %"
    assert "not for diagnostic use" in impressions[-1]
    findings = values(ds, "121071")
    assert "Pneumonia: FLAGGED. Probability 93.1 % ± 3.0 % (operating point 50.0 %)." in findings
    assert any(line.startswith("Model: chest-pneumonia 1.0.0") and "50 passes" in line for line in findings)
    assert values(ds, "121075") == ["Read with priority."]
    for item in items(ds):
        assert item.ValueType == "CONTAINER" or not item.get("ContentSequence")


def test_an_unflagged_study_is_not_called_healthy(store: Store) -> None:
    ds = read(build(unflagged(store), store), "text_sr")
    assert values(ds, "121073")[0] == "AI triage: no flagged finding; other disease was not looked for."
    assert ds.SeriesDescription == "AI result: report (research)"
    assert "Pneumonia: not flagged. Probability 12.0 % ± 3.0 % (operating point 50.0 %)." in values(ds, "121071")


def test_a_study_nobody_could_judge_says_why(store: Store) -> None:
    ds = read(build(unassessed(store), store), "text_sr")
    assert values(ds, "121073")[0] == "AI triage cannot assess: the patient's age is unknown"
    assert "Cannot assess: the patient's age is unknown" in values(ds, "121071")
    assert ds.CompletionFlag == "PARTIAL"


def test_no_object_ever_says_normal_or_low(store: Store) -> None:
    """The one exception is SNOMED's own meaning of the code for a priority that is not high."""
    hostile = analysed(
        finding(probability=0.6),
        finding("normal", 0.4),
        priority=MEDIUM,
        recommendations=("Looks normal.", "Read with priority."),
    )
    studies = [
        flagged_study(store),
        unflagged(store),
        study((keep(make_dx(), store), [not_assessed("the histogram is not normal, quality LOW")])),
        study((keep(make_dx(), store), [hostile])),
    ]
    for findings in studies:
        made = build(findings, store)
        for item in made:
            for text in all_text(read(made, item.kind)):
                assert not re.search(r"\bnormal|\bLOW\b", text, re.IGNORECASE), text


def test_the_secondary_capture_is_a_derived_colour_picture(store: Store) -> None:
    source = make_dx(LossyImageCompression="01", LossyImageCompressionRatio="12.5")
    ds = read(build(flagged_study(store, source), store), "secondary_capture")
    assert (ds.PhotometricInterpretation, ds.SamplesPerPixel, ds.PlanarConfiguration) == ("RGB", 3, 0)
    assert list(ds.ImageType) == ["DERIVED", "SECONDARY"]
    assert (ds.BurnedInAnnotation, ds.BodyPartExamined, ds.Modality) == ("YES", "CHEST", "OT")
    assert ds.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert ds.SourceImageSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    assert (ds.LossyImageCompression, ds.LossyImageCompressionRatio) == ("01", 12.5)
    assert "PixelSpacing" not in ds
    pixels = ds.pixel_array
    assert pixels.shape == (ds.Rows, ds.Columns, 3)
    assert (pixels[..., 0].astype(int) - pixels[..., 2]).max() > 100


def test_localization_off_draws_no_map(store: Store) -> None:
    findings = flagged_study(store)
    with_map = read(build(findings, store), "secondary_capture").pixel_array
    bare_settings = Settings(report=ReportSettings(localization="off"))
    without = read(build(findings, store, bare_settings), "secondary_capture").pixel_array
    body = slice(140, 1100)
    assert (with_map[body, ..., 0] != with_map[body, ..., 2]).any()
    assert (without[body, ..., 0] == without[body, ..., 2]).all()


def test_the_worst_image_is_the_one_shown(store: Store) -> None:
    mild, bad = make_dx(), make_dx()
    bad.StudyInstanceUID = mild.StudyInstanceUID
    looked = [
        (keep(mild, store), [analysed(finding(probability=0.6), priority=MEDIUM, display_path=picture(store, mild))]),
        (keep(bad, store), [analysed(display_path=picture(store, bad))]),
    ]
    for order in (looked, looked[::-1]):
        ds = read(build(study(*order), store), "secondary_capture")
        assert ds.SourceImageSequence[0].ReferencedSOPInstanceUID == bad.SOPInstanceUID


def test_a_revision_names_its_predecessors(store: Store) -> None:
    before = (
        SentReference("measurement_sr", "1.2.840.10008.5.1.4.1.1.88.33", "2.25.11", "2.25.12"),
        SentReference("text_sr", "1.2.840.10008.5.1.4.1.1.88.22", "2.25.13", "2.25.14"),
        SentReference("secondary_capture", "1.2.840.10008.5.1.4.1.1.7", "2.25.15", "2.25.16"),
    )

    def named(ds: Dataset) -> set[str]:
        return {
            str(sop.ReferencedSOPInstanceUID)
            for series in ds.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
            for sop in series.ReferencedSOPSequence
        }

    made = build(dataclasses.replace(flagged_study(store), predecessors=before), store)
    assert named(read(made, "measurement_sr")) == {"2.25.11"}
    assert named(read(made, "text_sr")) == {"2.25.13"}
    calmed = build(dataclasses.replace(unflagged(store), predecessors=before), store)
    assert named(read(calmed, "text_sr")) == {"2.25.11", "2.25.13"}


def test_a_study_without_a_readable_source_is_refused(store: Store) -> None:
    findings = flagged_study(store)
    store.path(findings.looked_at[0].instance.path).unlink()
    with pytest.raises(SourceUnreadable):
        build(findings, store)


def test_a_study_no_model_is_meant_for_gets_no_report(store: Store) -> None:
    with pytest.raises(NothingToSay):
        build(_empty(store), store)


def _empty(store: Store) -> StudyFindings:
    findings = unflagged(store)
    return dataclasses.replace(findings, looked_at=(dataclasses.replace(findings.looked_at[0], results=()),))


def test_no_patient_is_named_in_logs_or_errors(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """highdicom logs a name it finds odd; ours never reaches it."""
    caplog.set_level("DEBUG")
    build(flagged_study(store, make_dx(PatientName="SENTINEL", PatientID="SENTINEL")), store)
    assert "SENTINEL" not in caplog.text
