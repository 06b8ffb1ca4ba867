"""A whole node with its page, a PACS that takes everything, an archive that is away, and invented children."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from ledger.access import Role
from ledger.records import Job, Stage
from node.trying.demo import SAMPLES
from node.trying.sending import Peer, send_files
from tests.support.peers import free_port
from tests.support.running import RunningNode, StoreScp
from tests.support.waiting import wait_until

BORN = f"{datetime.now().year - 4}0203"
SENTINELS = ("WALBURGA", "HILDEBRAND", "ZZ-4711", BORN, f"{BORN[:4]}-02-03", "ACC-9")
ARCHIVE = "archive"


@dataclass
class Site:
    """studies: Study Instance UIDs by what the models say: high, unflagged, not_assessed."""

    node: RunningNode
    folder: Path
    tokens: dict[Role, str]
    studies: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.node.web_port}"

    def send(self, sample: str, number: int, **overrides: str | None) -> str:
        """One of the shipped samples as a new study of a child with a name that nobody else has; its UID."""
        ds = dressed(dcmread(SAMPLES / f"{sample}.dcm"), number, **overrides)
        path = self.folder / f"{ds.SOPInstanceUID}.dcm"
        ds.save_as(path, enforce_file_format=True)
        answers: list[int | None] = []
        peer = Peer(self.node.settings.receive.ae_title, "127.0.0.1", self.node.port)
        send_files([path], peer, lambda one: answers.append(one.status))
        assert answers == [0]
        return str(ds.StudyInstanceUID)

    def reported(self, uid: str) -> None:
        """Wait until the study's final report is with the PACS."""

        def done() -> bool:
            entry = self.node.entry(uid)
            return entry is not None and not entry.pending and dict(entry.deliveries).get("pacs") == "delivered"

        wait_until(done, 60, 0.1)

    def park(self, reason: str) -> Job:
        """Park one of the deliveries that the archive has not taken."""
        found: list[Job] = []

        def held() -> bool:
            found.extend(self.node.ledger.claim(Stage.DELIVER, "test", 1, 60.0, ARCHIVE))
            return bool(found)

        wait_until(held, 30)
        self.node.ledger.park(found[0], reason)
        return found[0]


def dressed(ds: Dataset, number: int, **overrides: str | None) -> Dataset:
    """Of this moment, with UIDs of its own, and with an identity that can be told from every other word."""
    now = datetime.now().astimezone()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(prefix=None), generate_uid(prefix=None)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
    ds.PatientName, ds.PatientID = f"HILDEBRAND^WALBURGA {number}", f"ZZ-4711-{number}"
    ds.PatientBirthDate, ds.AccessionNumber = BORN, f"ACC-9{number}"
    ds.TimezoneOffsetFromUTC = f"{now:%z}"
    for name in ("Study", "Series", "Acquisition", "Content"):
        setattr(ds, f"{name}Date", f"{now:%Y%m%d}")
        setattr(ds, f"{name}Time", f"{now:%H%M%S}")
    for keyword, value in overrides.items():
        setattr(ds, keyword, value)
    return ds


def destinations(pacs_port: int) -> str:
    """Settings: one that answers, one that nobody is behind."""
    blocks = [("pacs", "PACS", pacs_port), (ARCHIVE, "ARCHIVE", free_port())]
    return "\n".join(
        f'[[destinations]]\nname = "{name}"\nae_title = "{title}"\nhost = "127.0.0.1"\nport = {port}'
        for name, title, port in blocks
    )


def settled(folder: Path, pacs: StoreScp) -> Site:
    """A node that has received a study of each kind and reported it."""
    node = RunningNode(folder / "node", extra=destinations(pacs.port), oldest_job_max_s=86_400.0)  # one is away
    node.start()
    sent = folder / "sent"
    sent.mkdir()
    tokens = {role: node.ledger.create_token(f"dr-{role}", role, 1.0, "user:test") for role in Role}
    site = Site(node, sent, tokens)
    try:
        names = sorted(path.stem for path in SAMPLES.glob("*.dcm"))
        sent_uids = [site.send(name, number) for number, name in enumerate(names, 1)]
        sent_uids.append(site.send(names[0], 7, PatientAge=None, PatientBirthDate=""))
        for uid in sent_uids:
            site.reported(uid)
        for uid in sent_uids:
            entry = node.entry(uid)
            assert entry is not None
            assert entry.priority is not None
            site.studies.setdefault(entry.priority.value, uid)
    except BaseException:
        node.stop()
        raise
    return site
