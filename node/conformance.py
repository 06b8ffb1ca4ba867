"""The DICOM conformance statement (PS3.2): prose from a template, every table from the tables that the code uses.

The tables hold for the default settings; where a setting changes one, the text names it.
"""

import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
from highdicom.sr import CodedConcept
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom.sop_class import _STORAGE_CLASSES

from config import Settings
from config.load import origins
from config.settings import CommitmentRequestor, Destination
from ledger import commitment_results
from ledger.records import ResultObject
from scp import part10, status
from scp.admission.disposition import is_image_class
from scp.commitment import requests as commitment_requests
from scp.network import contexts
from scp.network.policy import Refusal
from sr_writer import codes, commitment, reasons
from sr_writer.dress import SERIES_NUMBERS
from sr_writer.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, software_version
from sr_writer.probe_study import SOURCE, probe_objects
from sr_writer.profiles import PROFILES, Profile
from sr_writer.statuses import class_name, state_of

FILE = Path("docs") / "conformance.md"
_TEMPLATES = Path(__file__).with_name("templates")
_LONGEST_DEFAULT = 60
Row = Sequence[object]


def statement() -> str:
    """The whole document, in Markdown. Builds one object of each kind to tell what is in it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,  # noqa: S701  Markdown of our own words
    )
    return environment.get_template("conformance.md").render(_facts())


def _facts() -> dict[str, Any]:
    settings = Settings()
    made = _one_of_each()
    return {
        "version": software_version(),
        "settings": settings,
        "implementation_uid": part10.IMPLEMENTATION_CLASS_UID,
        "implementation_name": part10.IMPLEMENTATION_VERSION_NAME,
        "writer_uid": IMPLEMENTATION_CLASS_UID,
        "writer_name": IMPLEMENTATION_VERSION_NAME,
        "explicit": UID(ExplicitVRLittleEndian).name,
        "storage_classes": len(contexts.storage_classes()),
        "result_classes": table(("SOP class", "UID"), ((class_name(uid), uid) for uid in _result_classes())),
        "transfer_syntaxes": table(("", "Transfer syntax", "UID", "Accepted"), _transfer_syntaxes(settings)),
        "received_classes": table(("SOP class", "UID", "Looked at"), _received()),
        "refusals": table(("Result / source / reason", "When"), _refusals()),
        "statuses": table(("Status", "When"), _statuses()),
        "destination_statuses": table(("Status", "What it means for the object"), _destination_statuses()),
        "failure_reasons": table(("Failure Reason", "Read as: the destination ..."), _failure_reasons()),
        "given_reasons": table(("Failure Reason", "When"), _given_reasons()),
        "commitment": commitment_requests,
        "profiles": table(("Object", *PROFILES), _profiles()),
        "kinds": table(("Object", "SOP classes", "Modality", "Series number", "Root template"), _kinds(made)),
        "attributes": table(("Attribute", "Tag", "VR", *(_words(one.kind) for one in made)), _attributes(made)),
        "private_codes": table(("Code", "Meaning"), _codes(codes, reasons, private=True)),
        "standard_codes": table(("Code", "Scheme", "Meaning"), _codes(codes, reasons, private=False)),
        "private_scheme": codes.PRIVATE_SCHEME,
        "private_scheme_uid": codes.PRIVATE_SCHEME_UID,
        "settings_table": table(("Setting", "Default"), _settings(settings)),
        "destination_table": table(("Setting of a destination", "Default"), _fields(Destination)),
        "requestor_table": table(("Setting of a commitment requestor", "Default"), _fields(CommitmentRequestor)),
    }


def table(heads: Sequence[str], rows: Iterable[Row]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    lines += [f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines)


def _words(kind: str) -> str:
    return kind.replace("_sr", " SR").replace("_", " ").capitalize().replace(" sr", " SR")


def _code(value: int) -> str:
    return f"0x{value:04X}"


# --- receive ---


def _transfer_syntaxes(settings: Settings) -> Iterator[Row]:
    accepted = contexts.transfer_syntaxes(settings.receive)
    every = contexts.transfer_syntaxes(
        settings.receive.model_copy(update={"accept_deflated": True, "accept_big_endian": True})
    )
    options = dict.fromkeys(contexts.DEFLATED, "accept_deflated") | dict.fromkeys(
        contexts.BIG_ENDIAN, "accept_big_endian"
    )
    for number, uid in enumerate(every, start=1):
        yield number, UID(uid).name, uid, "yes" if uid in accepted else f"only with `receive.{options[uid]}`"


def _received() -> Iterator[Row]:
    for uid in contexts.storage_classes():
        yield _storage_class_name(uid), uid, "if a model is meant for it" if is_image_class(uid) else "no: stored only"


def _storage_class_name(uid: str) -> str:
    """Of the newest classes pydicom has no name and pynetdicom a keyword, which is the name without its blanks."""
    if (name := class_name(uid)) != uid:
        return name
    keyword = next(keyword for keyword, known in _STORAGE_CLASSES.items() if known == uid)
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", keyword)


_WHEN = {
    Refusal.CALLING_AE_TITLE: "the calling AE title is not among `receive.allowed_calling_ae_titles`",
    Refusal.BINDING: "`[[peers]]` binds the calling AE title to another certificate or address, or the certificate to "
    "another title",
    Refusal.CALLED_AE_TITLE: "the called AE title is not ours and `receive.require_called_ae_title` is on",
    Refusal.TEMPORARY_CONGESTION: "the store cannot make anything durable",
    Refusal.LOCAL_LIMIT: "`receive.max_associations` are open",
}


def _refusals() -> Iterator[Row]:
    for refusal in Refusal:
        yield "/".join(map(str, refusal.answer)), _WHEN[refusal]


def _statuses() -> Iterator[Row]:
    yield _code(status.SUCCESS), "The bytes, the name and the job are on disk and would survive a power cut."
    for error, code in status.STATUS_OF.items():
        yield _code(code), re.split(r"(?<=[a-z])\. (?=`)", " ".join((error.__doc__ or "").split()))[0].rstrip(".") + "."
    yield _code(status.PROCESSING_FAILURE), "An error that was not foreseen, before anything was stored."
    yield _code(status.OUT_OF_RESOURCES), "An error that was not foreseen, after storing: send it again."


_GIVEN = {
    commitment_results.PROCESSING_FAILURE: "the stored file is gone or not what was received; an alarm in the log",
    commitment_results.NO_SUCH_OBJECT: "no such instance was received",
    commitment_results.CONFLICT: "it was received under another SOP class",
    commitment_results.DUPLICATE_TRANSACTION: "another list came under the same Transaction UID",
    commitment_results.RESOURCE_LIMITATION: "it was received longer ago than `retention_days`",
}


def _given_reasons() -> Iterator[Row]:
    for reason, when in _GIVEN.items():
        yield _code(reason), when


# --- deliver and prove ---


def _result_classes() -> list[str]:
    every = {uid for row in PROFILES.values() for named in row.sop_classes().values() for uid in named}
    return sorted(every, key=lambda uid: [int(part) for part in uid.split(".")])


def _destination_statuses() -> Iterator[Row]:
    """Runs of statuses that mean the same, of all that sixteen bits can say."""
    said = {"delivered": "stored: it is not sent again", "waiting": "tried again, for ever, at growing intervals"}
    for state, run in groupby(range(0x10000), key=state_of):
        codes_of_run = list(run)
        if state.value in said:
            first, last = codes_of_run[0], codes_of_run[-1]
            yield _code(first) if first == last else f"{_code(first)} to {_code(last)}", said[state.value]
    yield "any other", "refused: parked with a sentence that says what to do, until a person releases it"


def _failure_reasons() -> Iterator[Row]:
    for reason in commitment.REASONS:
        yield _code(reason), commitment.reason_words(reason)


def _profiles() -> Iterator[Row]:
    kinds = dict.fromkeys(kind for row in PROFILES.values() for kind in row.sop_classes())
    for kind in kinds:
        yield _words(kind), *(_offer(row, kind) for row in PROFILES.values())
    yield "Says where", *("where the site wants it" if row.place else "never" for row in PROFILES.values())


def _offer(row: Profile, kind: str) -> str:
    classes = row.sop_classes().get(kind)
    if classes is None:
        return "no"
    remarks = {
        "measurement_sr": "only with boxes" if row.boxes_only else "",
        "text_sr": "only where no measurement report goes" if row.text_alone else "",
        "secondary_capture": "HIGH and MEDIUM; words alone" if row.picture == "banner" else "HIGH and MEDIUM",
        "key_objects": "HIGH" if row.key_objects else 'HIGH, if `key_objects = "high"`',
        "presentation_state": "if `presentation_state`",
        "parametric_map": "CT and MR, if `parametric_map`",
        "segmentation": "of slice models",
    }
    names = ", else ".join(class_name(uid).removesuffix(" Storage") for uid in classes)
    return f"{names} ({remarks[kind]})" if remarks[kind] else names


# --- the objects ---


def _one_of_each() -> list[ResultObject]:
    with tempfile.TemporaryDirectory(prefix="opentriage-") as folder:
        made = [one for one in probe_objects(Path(folder)) if one.kind != SOURCE]
    return list({one.kind: one for one in reversed(made)}.values())[::-1]


def _kinds(made: Sequence[ResultObject]) -> Iterator[Row]:
    offered: dict[str, dict[str, None]] = {}
    for row in PROFILES.values():
        for kind, classes in row.sop_classes().items():
            offered.setdefault(kind, {}).update(dict.fromkeys(classes))
    for one in made:
        ds = _read(one)
        template = ds.get("ContentTemplateSequence")
        names = ", ".join(class_name(uid) for uid in offered[one.kind])
        root = f"TID {template[0].TemplateIdentifier}" if template else "-"
        yield _words(one.kind), names, ds.Modality, SERIES_NUMBERS[one.kind], root


def _attributes(made: Sequence[ResultObject]) -> Iterator[Row]:
    read = [_read(one) for one in made]
    for tag in sorted({element.tag for ds in read for element in ds}):
        element = next(ds[tag] for ds in read if tag in ds)
        yield element.name, str(tag).replace(", ", ","), element.VR, *("x" if tag in ds else "" for ds in read)


def _read(one: ResultObject) -> Dataset:
    return dcmread(BytesIO(one.content))


def _codes(*modules: ModuleType, private: bool) -> Iterator[Row]:
    """Every coded concept that a module names, by itself or in a table."""
    found = {(c.scheme_designator, c.value): c for module in modules for c in _concepts(vars(module).values())}
    if private:
        yield f"{codes.PROB_OF_LABEL}<label>", "<Finding> probability, of a box for a viewer that shows names alone"
        yield f"{codes.PROB_OF_BOX}<label>", "<Finding> box probability, the same where a finding has several boxes"
    for (scheme, value), concept in sorted(found.items()):
        if private and scheme == codes.PRIVATE_SCHEME:
            yield value, concept.meaning
        elif not private and scheme != codes.PRIVATE_SCHEME:
            yield value, scheme, concept.meaning


def _concepts(values: Iterable[Any]) -> Iterator[CodedConcept]:
    for value in values:
        if isinstance(value, CodedConcept):
            yield value
        elif isinstance(value, dict):
            yield from _concepts(value.values())
        elif isinstance(value, tuple):
            yield from _concepts(value)


# --- settings ---


def _settings(settings: Settings) -> Iterator[Row]:
    for key, value, _ in origins(settings, None):
        if not isinstance(value, tuple) or key.partition(".")[2]:
            yield f"`{key}`", _shown(value)


def _fields(block: type[BaseModel]) -> Iterator[Row]:
    for name, field in block.model_fields.items():
        yield f"`{name}`", "-" if field.default is PydanticUndefined else _shown(field.default)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value in ("", (), {}) or value == Path():
        return "-"
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= _LONGEST_DEFAULT and not isinstance(value, dict) else "see default.toml"
