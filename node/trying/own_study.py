"""The synthetic radiograph that the node sends to itself, and its call: over the real port, in TLS where that is on."""

import ssl
import warnings
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydicom import Dataset, dcmread
from pynetdicom import AE, _config, evt

from config import Settings
from ledger.errors import RetryableError
from ledger.reconcile import dataset_sha256
from node.trying.moment import make_new
from node.watching.certificates import ECHO_ENDS
from node.watching.echo import receive_address
from scp.callers.own import own_title
from scp.network.tls import CannotSecure, own_client_context, rehearse
from sr_writer.bounded_socket import Limits

SAMPLE = Path(__file__).parents[1] / "samples" / "synthetic-chest-3.dcm"
PATIENT_NAME, PATIENT_ID = "HEARTBEAT^OPENTRIAGE^^^Not a patient", "OPENTRIAGE-HEARTBEAT"
_LOW = 2  # (0000,0700), PS3.7 9.3.1.1
_config.STORE_SEND_CHUNKED_DATASET = True  # the file's bytes, whose hash was registered


class NotSent(RetryableError):
    """The node could not send itself the study; the text says why."""


class CannotCallItself(NotSent):
    """Nor will it, with these certificates: the node's own would not let it in."""


@dataclass(frozen=True)
class OwnStudy:
    """A file that is sent once. sha256: of its data set."""

    path: Path
    study_instance_uid: str
    sop_instance_uid: str
    sha256: str


def make_own_study(folder: Path) -> OwnStudy:
    """A study of this moment, of nobody, with UIDs of its own."""
    ds = dcmread(SAMPLE)
    now = datetime.now().astimezone()
    ds.PatientName, ds.PatientID = PATIENT_NAME, PATIENT_ID
    ds.AccessionNumber, ds.StudyID = "", "HEARTBEAT"
    ds.StudyDescription = "OpenTriage heartbeat, not a patient"
    make_new(ds, now)
    path = folder / "heartbeat.dcm"
    ds.save_as(path, enforce_file_format=True)
    return OwnStudy(path, str(ds.StudyInstanceUID), str(ds.SOPInstanceUID), dataset_sha256(path))


def send_to_self(study: OwnStudy, settings: Settings, timeout_s: float = 30.0) -> None:
    """One association, one C-STORE of low priority. Raises NotSent, CannotCallItself."""
    host, port = receive_address(settings)
    if port == 0:
        raise NotSent("no receiver of this machine says where it listens")
    secured = (_secured(settings), host) if settings.receive.tls.enabled else None
    file_meta = dcmread(study.path, stop_before_pixels=True).file_meta
    ae = AE(ae_title=own_title(settings))
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = timeout_s
    ae.add_requested_context(file_meta.MediaStorageSOPClassUID, file_meta.TransferSyntaxUID)
    limits: list[evt.EventHandlerType] = [(evt.EVT_CONN_OPEN, Limits("this node", timeout_s, timeout_s).take)]
    assoc = ae.associate(host, port, ae_title=settings.receive.ae_title, tls_args=secured, evt_handlers=limits)
    if not assoc.is_established:
        raise NotSent(f"the receiver at {host}:{port} did not take the association")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = assoc.send_c_store(study.path, priority=_LOW)
    finally:
        assoc.release()
    if answer.get("Status", -1) != 0:
        raise NotSent(_said(answer))


def _secured(settings: Settings) -> ssl.SSLContext:
    try:
        if settings.receive.tls.mutual and (why := rehearse(settings.receive.tls)):
            raise CannotCallItself(ECHO_ENDS.format(why=why))
        return own_client_context(settings.receive.tls)
    except CannotSecure as error:
        raise NotSent(str(error)) from None


def _said(answer: Dataset) -> str:
    if "Status" not in answer:
        return "the receiver did not answer the C-STORE"
    comment = str(answer.get("ErrorComment", ""))
    return f"the receiver answered 0x{int(answer.Status):04X}" + (f": {comment}" if comment else "")
