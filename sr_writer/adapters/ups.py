"""UPS-RS (PS3.18 11): one workitem for each study, "read this", whose priority (0074,1200) is what the report says.

The first report creates it (11.4), later ones change its priority (11.6), a withdrawn one asks to cancel it (11.8).
After a withdrawal the next report makes a new one. A workitem that somebody works on, or has finished, is left alone.
"""

import json
from copy import copy
from typing import Any

from pydicom.dataset import Dataset

from config.adapters import UpsAdapter
from config.settings import DeliverSettings
from ledger.records import TriagePriority
from sr_writer import codes
from sr_writer.adapters.http import post, refusal
from sr_writer.adapters.telling import WITHDRAWN, Answer, Message, accepted, not_needed, refused, secret
from sr_writer.errors import Unreachable
from sr_writer.identity import uid_from
from sr_writer.source import PATIENT

UPS_PUSH = "1.2.840.10008.5.1.4.34.6.1"
_EMPTY = (
    "ScheduledProcessingParametersSequence",
    "ScheduledStationNameCodeSequence",
    "ScheduledStationClassCodeSequence",
    "ScheduledStationGeographicLocationCodeSequence",
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
    "AdmittingDiagnosesDescription",
    "AdmittingDiagnosesCodeSequence",
    "InputInformationSequence",  # the study is named; which way its images are fetched is not ours to say
    "ProcedureStepProgressInformationSequence",
    "UnifiedProcedureStepPerformedProcedureSequence",
    "TransactionUID",
    "OtherPatientIDsSequence",
)
_BUSY = "{} works on this study already, or is done with it: its priority stays as it is."


class UpsTeller:
    """At most two requests for each report."""

    def __init__(self, settings: UpsAdapter, times: DeliverSettings) -> None:
        self._settings = settings
        self._times = times

    def tell(self, message: Message) -> Answer:
        """Raises Unreachable, TryLater."""
        uid = workitem_uid(message)
        if message.status == WITHDRAWN:
            return self._cancel(uid, message)
        status = self._post(f"workitems?{uid}", workitem(message, self._settings))
        if status == 201:
            return accepted(f"{self._settings.key} created workitem {uid}.")
        if status != 409:
            return refused(refusal(self._settings.key, status, "to create the workitem"))
        return self._change(uid, message)

    def _change(self, uid: str, message: Message) -> Answer:
        """It is there already: of an earlier report, or of a try whose answer was lost."""
        status = self._post(f"workitems/{uid}", change(message, self._settings))
        if 200 <= status < 300:
            return accepted(f"{self._settings.key} took the priority of workitem {uid}.")
        if status in (409, 410):
            return not_needed(_BUSY.format(self._settings.key))
        return refused(refusal(self._settings.key, status, "to change the workitem"))

    def _cancel(self, uid: str, message: Message) -> Answer:
        status = self._post(f"workitems/{uid}/cancelrequest", cancellation())
        if 200 <= status < 300:
            return accepted(f"{self._settings.key} was asked to cancel workitem {uid}.")
        if status in (404, 409, 410):
            return not_needed(f"{self._settings.key} has no open workitem of this study.")
        return refused(refusal(self._settings.key, status, "to cancel the workitem"))

    def _post(self, path: str, content: Dataset) -> int:
        one = self._settings
        headers = {"Content-Type": "application/dicom+json", "Accept": "application/dicom+json"}
        if one.token_file.name:
            headers["Authorization"] = f"Bearer {self._token()}"
        body = json.dumps(dicom_json(content)).encode()
        return post(
            f"{one.url.rstrip('/')}/{path}", body, headers, one.ca_file, self._times.response_timeout_s, one.key
        )

    def _token(self) -> str:
        try:
            return secret(self._settings.token_file).decode("ascii")
        except (OSError, ValueError) as error:
            raise Unreachable(f"token_file of {self._settings.key} cannot be read ({type(error).__name__}).") from None


def dicom_json(content: Dataset) -> list[dict[str, Any]]:
    """PS3.18 F.2: one data set in an array."""
    return [content.to_json_dict()]


def workitem_uid(message: Message) -> str:
    """The study's workitem for this adapter, until a report of it is withdrawn."""
    epoch = str(message.notice.withdrawals)
    return uid_from("workitem", message.installation_uid, message.adapter, message.notice.study_instance_uid, epoch)


def priority_of(message: Message, settings: UpsAdapter) -> str:
    """(0074,1200). What could not be assessed never sinks below what was."""
    if message.notice.priority is TriagePriority.LOW:
        return settings.unflagged
    return "HIGH" if message.notice.priority is TriagePriority.HIGH else "MEDIUM"


def change(message: Message, settings: UpsAdapter) -> Dataset:
    """What a report says anew of a workitem that exists."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ScheduledProcedureStepPriority = priority_of(message, settings)
    ds.ProcedureStepLabel = _label(message)
    return ds


def workitem(message: Message, settings: UpsAdapter) -> Dataset:
    """All that PS3.4 Table CC.2.5-3 asks of a creator."""
    ds = change(message, settings)
    for keyword in _EMPTY:
        setattr(ds, keyword, [] if keyword.endswith("Sequence") else "")
    made = f"{message.header.local(message.notice.made_at):%Y%m%d%H%M%S%z}"
    ds.SOPClassUID, ds.SOPInstanceUID = UPS_PUSH, workitem_uid(message)
    ds.WorklistLabel = settings.worklist_label
    ds.ScheduledProcedureStepModificationDateTime = ds.ScheduledProcedureStepStartDateTime = made
    ds.ScheduledWorkitemCodeSequence = [codes.INTERPRETATION]
    ds.CommentsOnTheScheduledProcedureStep = "AI triage, for research use only; not reviewed by a physician."
    ds.ProcedureStepState, ds.InputReadinessState = "SCHEDULED", "READY"
    for keyword in PATIENT:
        setattr(ds, keyword, message.text(keyword))
    ds.StudyInstanceUID = message.notice.study_instance_uid
    ds.ReferencedRequestSequence = _request(message)
    return ds


def _request(message: Message) -> list[Dataset]:
    if message.header.request is None:
        return []
    item = copy(message.header.request)
    item.OrderPlacerIdentifierSequence, item.OrderFillerIdentifierSequence = [], []
    return [item]


def cancellation() -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ReasonForCancellation = "The AI triage result was withdrawn."
    return ds


def _label(message: Message) -> str:
    flagged = message.status in ("HIGH", "MEDIUM")
    return f"AI TRIAGE {message.status}: read this study" if flagged else "Read this study"
