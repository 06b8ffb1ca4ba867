"""`analyse --out`: the very objects the node would send, grouped by study, under a UID namespace of its own."""

import hashlib
import io
import tempfile
import uuid
import warnings
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from pydicom import dcmread

from config import Settings
from inference.analyser import Looked
from inference.slices import read_geometry
from inference.volume import volumes_of
from ledger.errors import PermanentError
from ledger.reconcile import dataset_sha256
from ledger.records import (
    InstanceRef,
    InstanceResults,
    ReportKind,
    ResultObject,
    ResultStatus,
    StudyFindings,
    TriagePriority,
)
from ledger.slices import results_of, study_priority
from ledger.store import Store
from node.files import private
from node.telling.overlay import write_overlay
from node.trying.sending import read_item
from sr_writer.build import build_objects
from sr_writer.profiles import DEFAULT_PROFILE

# Not any node's, and another one in each run: what `analyse` writes can never be mistaken for, or replace, what a node
# or an earlier run has made.
ANALYSE_INSTALLATION_UID = f"2.25.{uuid.uuid4().int}"


class Scratch:
    """A store for one command: sources are copied in, so that the writer reads them as in the node."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="opentriage-analyse-")
        self.store = Store(Path(self._folder.name), fsync=lambda descriptor: None)
        self.store.prepare()

    def close(self) -> None:
        """Delete the copies."""
        self._folder.cleanup()

    def keep(self, path: Path, looked: Looked, number: int) -> InstanceResults | None:
        """The instance with its routed results; None when there is nothing to report on it."""
        routed = tuple(result for result in looked.results if result.status is not ResultStatus.NOT_APPLICABLE)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's warnings quote values
            item = read_item(path)
        if not routed or item is None or not looked.study_instance_uid or not looked.sop_instance_uid:
            return None
        content = path.read_bytes()
        ref = InstanceRef(
            instance_id=number,
            sop_class_uid=item.sop_class_uid,
            sop_instance_uid=looked.sop_instance_uid,
            series_instance_uid=looked.series_instance_uid or "",
            study_instance_uid=looked.study_instance_uid,
            transfer_syntax_uid=item.transfer_syntax_uid,
            modality=looked.modality or "",
            sha256=dataset_sha256(path),
            path=self.store.put("instances", hashlib.sha256(content).hexdigest(), ".dcm", content),
            received_at=datetime.now(UTC),
        )
        return InstanceResults(ref, routed)


def write_studies(
    kept: Iterable[InstanceResults], store: Store, settings: Settings, out: Path
) -> tuple[list[Path], list[str]]:
    """Write each study's objects and overlay PNG into `out`, 0600; the files, and a sentence per study without any."""
    studies: dict[str, list[InstanceResults]] = {}
    for item in kept:
        studies.setdefault(item.instance.study_instance_uid, []).append(item)
    written: list[Path] = []
    problems: list[str] = []
    for study_uid, items in studies.items():
        findings = StudyFindings(
            study_instance_uid=study_uid,
            kind=ReportKind.FINAL,
            priority=study_priority(results_of(items)) or TriagePriority.NOT_ASSESSED,
            looked_at=tuple(items),
            reported_at=datetime.now(UTC),
            volumes=volumes_of(items, lambda ref: read_geometry(store.path(ref.path))),
        )
        try:
            made = build_objects(findings, store, settings, ANALYSE_INSTALLATION_UID, DEFAULT_PROFILE)
            made = [one for one in made if not one.preference]  # the other forms of a report say the same
        except PermanentError as error:
            problems.append(f"study {study_uid}: {error}")
            continue
        kinds: dict[str, int] = {}
        for result_object in made:
            number = kinds[result_object.kind] = kinds.get(result_object.kind, 0) + 1
            written += _write(result_object, f"{study_uid}_{result_object.kind}{f'_{number}' * (number > 1)}", out)
    return written, problems


def _write(made: ResultObject, name: str, out: Path) -> list[Path]:
    path = out / f"{name}.dcm"
    with open(path, "wb", opener=private) as file:
        file.write(made.content)
    if made.kind != "secondary_capture":
        return [path]
    picture = path.with_suffix(".png")
    with open(picture, "wb", opener=private):
        write_overlay(dcmread(io.BytesIO(made.content)), picture)
    return [path, picture]
