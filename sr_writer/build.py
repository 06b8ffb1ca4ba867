"""Findings in, finished objects out: those of one plan."""

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from config.settings import Destination, ProfileName, Settings
from ledger.reconcile import dataset_sha256
from ledger.records import InstanceRef, ReportKind, ResultObject, SentReference, StudyFindings
from ledger.store import Store
from sr_writer import profiles
from sr_writer.dress import Report
from sr_writer.errors import NothingToSay, NotProven, SourceUnreadable
from sr_writer.guard import CHANGED, whole_object
from sr_writer.identity import identity_of
from sr_writer.image_names import image_names
from sr_writer.key_objects import key_objects
from sr_writer.measurement_report import measurement_report
from sr_writer.parametric_map import parametric_maps
from sr_writer.presentation_state import presentation_state
from sr_writer.profiles import Plan, plain, plan_for, reports_alone, text_plan, withdrawal_plan
from sr_writer.reading import by_image, marked_anything, reads
from sr_writer.secondary_capture import secondary_capture
from sr_writer.segmentation import segmentations
from sr_writer.source import SourceHeader, frame_looked_at, read_header
from sr_writer.text_report import text_report
from sr_writer.withdrawal import withdrawn_objects


def build_objects(
    findings: StudyFindings,
    store: Store,
    settings: Settings,
    installation_uid: str,
    plan: Plan | ProfileName,
    destinations: Collection[str] | None = None,
) -> list[ResultObject]:
    """The objects of one report in one plan, the same bytes for the same input; none for an empty plan.

    plan: a profile's name stands for a destination of this profile without wishes of its own. destinations: who gets
    them; they are told of the predecessors that they have, and None stands for somebody who has them all.
    Raises SourceUnreadable when no source header can be read, NotProven when the source that a header was read from is
    not what was received, NothingToSay when no result concerns a reader.
    """
    seen = _seen(findings)
    if not seen:
        raise NothingToSay("no result of this study concerns a reader")
    if isinstance(plan, str):
        plan = plan_of(plain(plan), findings)
    if not plan.kinds:
        return []
    header, header_of = _header(seen, store, findings)
    report = Report(
        findings=replace(findings, predecessors=held(findings.predecessors, destinations)),
        header=header,
        header_of=header_of,
        settings=settings.report,
        identity=identity_of(findings, settings.results_hash, installation_uid, plan.name),
        installation_uid=installation_uid,
        critical_flags=settings.decide.critical_flags_in_dicom,
        plan=plan,
        frames=frames_looked_at(seen, store),
        image_names=image_names(dict.fromkeys(read.instance for read in by_image(reads(findings))), store),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings quote values
        return withdrawn_objects(report) if report.withdrawn else _objects(report, store)


def plan_of(destination: Destination, findings: StudyFindings) -> Plan:
    """What `destination` gets of this report."""
    if _withdrawn(findings):
        measured = any(item.kind == profiles.MEASUREMENT_SR for item in findings.predecessors)
        return withdrawal_plan(destination, measured)
    plan = plan_for(destination, findings.priority, marked_anything(findings))
    if findings.confirms and held(findings.predecessors, {destination.key}):
        return reports_alone(plan)  # the pictures that it has still say all there is
    if not plan.kinds and held(findings.predecessors, {destination.key}):
        return text_plan(destination)  # what it was told before no longer stands: silence would leave it standing
    return plan


def held(predecessors: Sequence[SentReference], destinations: Collection[str] | None) -> tuple[SentReference, ...]:
    """Those of the earlier objects that one of `destinations` has or is about to get."""
    if destinations is None:
        return tuple(predecessors)
    return tuple(item for item in predecessors if not set(destinations).isdisjoint(item.destinations))


def _withdrawn(findings: StudyFindings) -> bool:
    return findings.kind is ReportKind.WITHDRAWN


def _objects(report: Report, store: Store) -> list[ResultObject]:
    """In the order of `Plan.kinds`; reports first, and masks last: an alarm does not wait for them."""
    plan = report.plan
    masks, segments = segmentations(report, store) if plan.segmentation and report.shows_place else ([], ())
    report = replace(report, segments=segments)
    measurements = _if_any(lambda: measurement_report(report)) if plan.measurement_sr else []
    report = replace(report, measurements=bool(measurements))
    made = {profiles.MEASUREMENT_SR: measurements, profiles.SEGMENTATION: masks}
    made |= {kind: _if_any(build) for kind, build in _builders(report, store).items() if plan.has(kind)}
    return [one for kind in plan.kinds for one in made[kind]]


def _builders(report: Report, store: Store) -> Mapping[str, Callable[[], list[ResultObject]]]:
    """Of the kinds that no other is built from; each may turn out to have nothing to show."""
    text_too = not (report.plan.text_alone and report.measurements)
    return {
        profiles.TEXT_SR: lambda: text_report(report) if text_too else [],
        profiles.SECONDARY_CAPTURE: lambda: [secondary_capture(report, store, report.plan.picture == "banner")],
        profiles.KEY_OBJECTS: lambda: [key_objects(report)],
        profiles.PRESENTATION_STATE: lambda: [one for one in [presentation_state(report, store)] if one],
        profiles.PARAMETRIC_MAP: lambda: parametric_maps(report, store),
    }


def _if_any(build: Callable[[], list[ResultObject]]) -> list[ResultObject]:
    try:
        return build()
    except NothingToSay:
        return []


def _seen(findings: StudyFindings) -> list[InstanceRef]:
    """The images that a report is about, the worst first. A withdrawal is about those of the report that it takes
    back, whatever is said of them now."""
    if _withdrawn(findings):
        return [item.instance for item in findings.looked_at]
    return list(dict.fromkeys(read.instance for read in reads(findings)))


def _header(seen: list[InstanceRef], store: Store, findings: StudyFindings) -> tuple[SourceHeader, InstanceRef]:
    """The worst image's header, or the next one that can be read: all are of one patient. A withdrawal, which must not
    wait for a damaged source, may take it from what it takes back."""
    try:
        return _source_header(seen, store, findings.study_instance_uid)
    except (SourceUnreadable, NotProven):
        own = [one for one in findings.takes_back if whole_object(store, one) is not None]
        if not own:
            raise
        return read_header(store.path(own[0].path), findings.study_instance_uid), seen[0]


def _source_header(seen: list[InstanceRef], store: Store, study_instance_uid: str) -> tuple[SourceHeader, InstanceRef]:
    failure: SourceUnreadable | None = None
    for instance in seen:
        path = store.path(instance.path)
        try:
            header = read_header(path, study_instance_uid)
        except SourceUnreadable as error:
            failure = error
            continue
        _prove_unchanged(path, instance)
        return header, instance
    raise failure or SourceUnreadable("the study has no stored source")


def frames_looked_at(images: Iterable[InstanceRef], store: Store) -> dict[str, int]:
    """SOP Instance UID -> frame number, of the images that have several. Those that cannot be read are left out."""
    found: dict[str, int] = {}
    for image in images:
        with suppress(SourceUnreadable):
            if frame := frame_looked_at(store.path(image.path), image.sop_class_uid):
                found[image.sop_instance_uid] = frame
    return found


def _prove_unchanged(path: Path, instance: InstanceRef) -> None:
    """Asked before a report is made: one that names whoever the file names now could never leave. Raises NotProven."""
    if dataset_sha256(path) != instance.sha256:
        raise NotProven(CHANGED)
