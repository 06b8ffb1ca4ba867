"""What the stages do, as the audit trail tells of it: codes, numbers and names of ours, never anybody's sentence.

A reason, an error comment or a cause that a person typed may name a patient; they stay in the study's history, which
can be forgotten.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ledger.audit import NODE, AuditEvent, AuditKind, Outcome
from ledger.delivery_records import DeliveryOutcome, DeliveryState
from ledger.records import ImageResult, Job, ReceivedInstance, Stage, StudyFindings

PERSON: Final = "user"  # whoever calls and does not say who it is
ENDED: Final = (DeliveryState.DELIVERED, DeliveryState.REFUSED, DeliveryState.STOPPED)  # a try that failed is none
_OF_STAGE: Final = {
    Stage.ANALYSE: AuditKind.ANALYSED,
    Stage.REPORT: AuditKind.REPORTED,
    Stage.DELIVER: AuditKind.TRANSFERRED,
    Stage.PROVE: AuditKind.QUERY,
    Stage.NOTIFY: AuditKind.TRANSFERRED,
}


def receipts(admitted: Iterable[tuple[int, ReceivedInstance]], came: str = "new") -> list[AuditEvent]:
    """What one commit took: a record for each study and sender, with the numbers of the instances."""
    found: dict[tuple[str, str, str, str], list[tuple[int, ReceivedInstance]]] = {}
    for instance_id, one in admitted:
        who = (one.study_instance_uid, one.calling_ae_title, one.peer_address, one.patient_digest)
        found.setdefault(who, []).append((instance_id, one))
    return [_receipt(*who, instances, came) for who, instances in found.items()]


def _receipt(
    study_uid: str, title: str, peer: str, patient: str, admitted: Sequence[tuple[int, ReceivedInstance]], came: str
) -> AuditEvent:
    detail = {
        "did": "received",
        "came": came,
        "instances": [instance_id for instance_id, _ in admitted],
        "sop_classes": Counter(one.sop_class_uid for _, one in admitted),
    }
    return AuditEvent(AuditKind.TRANSFERRED, f"ae:{title}", study_uid, patient, peer, detail=detail)


def analysed(job: Job, results: Sequence[ImageResult]) -> AuditEvent:
    said = [
        {
            "status": result.status,
            "priority": result.priority,
            "model": result.model and f"{result.model.name} {result.model.version}",
            "digest": result.model and result.model.digest,
        }
        for result in results
    ]
    detail = _of(job, "analysed") | {"results": said}
    return AuditEvent(AuditKind.ANALYSED, f"{NODE}:analyse", job.study_instance_uid, detail=detail)


def reported(job: Job, report_id: int, findings: StudyFindings, objects: int, receivers: Iterable[str]) -> AuditEvent:
    detail = _of(job, "reported") | {
        "report": report_id,
        "report_kind": findings.kind,
        "priority": findings.priority,
        "objects": objects,
        "for": sorted(receivers),
    }
    return AuditEvent(AuditKind.REPORTED, f"{NODE}:report", job.study_instance_uid, detail=detail)


def begins(job: Job, sop_classes: Iterable[str]) -> AuditEvent:
    """A destination has taken our association: objects of one study will go over it."""
    detail = _of(job, "begins") | {"report": job.report_id, "to": job.destination, "sop_classes": Counter(sop_classes)}
    return AuditEvent(AuditKind.TRANSFERS, f"{NODE}:deliver", job.study_instance_uid, detail=detail)


def asked(job: Job, to: str, how: str) -> AuditEvent:
    """That we ask somebody about a study, before we do. how: "C-FIND", "QIDO-RS", "storage commitment"."""
    detail = _of(job, "asked") | {"to": to, "how": how}
    return AuditEvent(AuditKind.QUERY, f"{NODE}:{job.stage}", job.study_instance_uid, detail=detail)


def sent(job: Job, outcome: DeliveryOutcome, kind: str) -> AuditEvent:
    """A destination's answer for one object, or that we stopped it."""
    detail = _of(job, outcome.state) | {
        "report": job.report_id,
        "object": outcome.object_id,
        "object_kind": kind,
        "to": job.destination,
        "status": outcome.status,
    }
    failed = Outcome.SUCCESS if outcome.state is DeliveryState.DELIVERED else Outcome.SERIOUS_FAILURE
    return AuditEvent(AuditKind.TRANSFERRED, f"{NODE}:deliver", job.study_instance_uid, outcome=failed, detail=detail)


def told(job: Job, state: str, is_failure: bool) -> AuditEvent:
    """What an adapter's receiver made of a message, which may name the patient."""
    detail = _of(job, state) | {"report": job.report_id, "to": job.destination}
    failed = Outcome.SERIOUS_FAILURE if is_failure else Outcome.SUCCESS
    return AuditEvent(AuditKind.TRANSFERRED, f"{NODE}:notify", job.study_instance_uid, outcome=failed, detail=detail)


def parked(job: Job) -> AuditEvent:
    """Work that stopped until a person looks at it."""
    detail = _of(job, "parked") | {"attempts": job.attempt}
    if job.destination:
        detail["to"] = job.destination
    return AuditEvent(
        _OF_STAGE[job.stage],
        f"{NODE}:{job.stage}",
        job.study_instance_uid,
        outcome=Outcome.SERIOUS_FAILURE,
        detail=detail,
    )


def operated(actor: str, did: str, study_uid: str = "", **detail: Any) -> AuditEvent:
    """What a person set going."""
    return AuditEvent(AuditKind.OPERATED, actor, study_uid, detail={"did": did} | detail)


def rejected(reasons: Mapping[str, Mapping[str, int]]) -> list[AuditEvent]:
    """reasons: of associations that were rejected -> calling AE title -> how often. One record a reason."""
    return [
        AuditEvent(
            AuditKind.SECURITY_ALERT,
            f"{NODE}:receive",
            outcome=Outcome.MINOR_FAILURE,
            detail={
                "did": "rejected",
                "why": why,
                "count": sum(titles.values()),
                "callers": len(titles),
                "some": sorted(titles, key=lambda title: -titles[title])[:5],
            },
        )
        for why, titles in sorted(reasons.items())
    ]


def _of(job: Job, did: str) -> dict[str, Any]:
    detail: dict[str, Any] = {"did": did, "job": job.job_id}
    if job.instance is not None:
        detail["instance"] = job.instance.instance_id
    return detail
