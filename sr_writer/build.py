"""Findings in, finished objects out."""

import warnings
from dataclasses import replace

from config.settings import Settings
from ledger.records import InstanceRef, ResultObject, StudyFindings
from ledger.store import Store
from sr_writer.dress import Report
from sr_writer.errors import NothingToSay, SourceUnreadable
from sr_writer.identity import identity_of
from sr_writer.measurement_report import measurement_report
from sr_writer.reading import Read, measured, reads
from sr_writer.secondary_capture import secondary_capture
from sr_writer.segmentation import segmentations
from sr_writer.source import SourceHeader, read_header
from sr_writer.text_report import text_report
from sr_writer.words import FLAGGED


def build_objects(
    findings: StudyFindings, store: Store, settings: Settings, installation_uid: str, profile: str
) -> list[ResultObject]:
    """The objects of one report, the same bytes for the same input.

    HIGH and MEDIUM: measurement SR, text SR, Secondary Capture. Everything else: the text SR, and the measurement SR
    where a model that may not raise the priority marked something.
    Raises SourceUnreadable when no source header can be read, NothingToSay when no result concerns a reader.
    """
    found = reads(findings)
    if not found:
        raise NothingToSay("no result of this study concerns a reader")
    header, header_of = _header(found, store, findings.study_instance_uid)
    report = Report(
        findings=findings,
        header=header,
        header_of=header_of,
        settings=settings.report,
        identity=identity_of(findings, settings.results_hash, installation_uid, profile),
        installation_uid=installation_uid,
        critical_flags=settings.decide.critical_flags_in_dicom,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings quote values
        return _objects(report, store)


def _objects(report: Report, store: Store) -> list[ResultObject]:
    masks, segments = segmentations(report, store)
    report = replace(report, segments=segments)
    made = [measurement_report(report), text_report(report)] if measured(report) else [text_report(report)]
    if report.findings.priority in FLAGGED:
        made.append(secondary_capture(report, store))
    return [*made, *masks]  # last: an alarm does not wait for them


def _header(found: list[Read], store: Store, study_instance_uid: str) -> tuple[SourceHeader, InstanceRef]:
    """The worst image's header, or the next one that can be read: all are of one patient."""
    failure: SourceUnreadable | None = None
    for instance in dict.fromkeys(read.instance for read in found):
        try:
            return read_header(store.path(instance.path), study_instance_uid), instance
        except SourceUnreadable as error:
            failure = error
    raise failure or SourceUnreadable("the study has no stored source")
