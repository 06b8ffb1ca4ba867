"""Without signing in the pages name nobody and change nothing; what is wrong is said above everything."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread
from typer.testing import CliRunner

from config import Settings
from ledger.access import Role
from ledger.audit import AuditEvent, AuditKind
from ledger.completion import Completion
from ledger.errors import LedgerUnavailable
from ledger.ledger import Ledger
from ledger.peers import Observed
from ledger.records import ReportKind, Stage, TriagePriority
from ledger.tables import audit_records
from node.cli import app
from node.telling.places import made_of
from node.trying.demo import SAMPLES
from node.watching import health
from node.web import page_study
from node.web.app import make_app
from node.web.page_unsigned import Words
from node.wiring import open_ledger
from tests.support import ledgers
from tests.support.asgi import Client
from tests.support.looking import headers_read
from tests.support.records import received, stored_object

STUDY = "2.25.77"
WORDS = ("SENTINEL", "ZZ-4711", "ACC-9")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "own_echo", lambda settings, timeout_s: True)


def site(folder: Path, **web: object) -> Settings:
    return Settings.model_validate({"node": {"state_dir": folder}, "web": web})


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A study of a child with a name, looked at and parked."""
    opened = open_ledger(site(tmp_path))
    ds = dcmread(next(SAMPLES.glob("*.dcm")))
    ds.PatientName, ds.PatientID, ds.AccessionNumber = "SENTINEL^A", "ZZ-4711", "ACC-9"
    ds.StudyInstanceUID = STUDY
    file = tmp_path / "sent.dcm"
    ds.save_as(file)
    path = opened.store.put("instances", "ab" * 32, ".dcm", file.read_bytes())
    opened.admit(received(STUDY, path=path, sha256="ab" * 32), Completion(60.0))
    (job,) = opened.claim(Stage.ANALYSE, "test", 1, 60.0)
    opened.finish_analysis(job, [ledgers.analysed(0.93, TriagePriority.HIGH)])
    (report,) = opened.claim(Stage.REPORT, "test", 1, 60.0)
    opened.park(report, "The disk is full.")
    yield opened
    opened.close()


@pytest.fixture
def read(tmp_path: Path, ledger: Ledger) -> Iterator[None]:
    """Somebody reads headers for the page."""
    with headers_read(site(tmp_path)):
        yield


class Session:
    """A client that signed in."""

    def __init__(self, client: Client, ledger: Ledger, role: Role) -> None:
        token = ledger.create_token(f"dr-{role}", role, 1.0, "user:test")
        answer = client.request("POST", "/sign-in", data={"token": token})
        self._client = client
        self.headers = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
        found = re.search('name="csrf" value="([0-9a-f]{64})"', self.get("/").text)
        assert found
        self.csrf = found[1]

    def get(self, path: str) -> httpx.Response:
        return self._client.request("GET", path, headers=self.headers)

    def post(self, path: str, **data: str) -> httpx.Response:
        return self._client.request("POST", path, headers=self.headers, data={"csrf": self.csrf, **data})


def test_a_stranger_reads_nobodys_name_and_releases_nothing(tmp_path: Path, ledger: Ledger) -> None:
    client = Client(make_app(site(tmp_path), ledger))
    assert STUDY not in client.request("POST", "/search", data={"q": "ACC-9"}).text
    assert STUDY in client.request("POST", "/search", data={"q": STUDY}).text
    for path in ("/?names=1&q=ACC-9", f"/study/{STUDY}", "/parked", "/senders", "/models", "/pace", "/sign-in"):
        text = client.get(path).text
        assert [word for word in WORDS if word in text.replace('value="ACC-9"', "")] == [], path
    (job,) = ledger.parked()
    assert client.request("POST", f"/parked/{job.job_id}/release").status_code == 401
    assert client.request("POST", f"/study/{STUDY}/opinion").status_code == 401
    assert client.get(f"/study/{STUDY}/picture.png").status_code == 401
    assert len(ledger.parked()) == 1


@pytest.mark.usefixtures("read")
def test_who_may_read_sees_whose_it_is_and_is_remembered_without_its_name(tmp_path: Path, ledger: Ledger) -> None:
    reader = Session(Client(make_app(site(tmp_path), ledger)), ledger, Role.READ)
    assert STUDY in reader.post("/search", q="ACC-9").text
    text = reader.get(f"/study/{STUDY}").text
    assert all(word in text for word in WORDS)
    with ledger._read() as connection:
        rows = connection.execute(audit_records.select()).all()
    accessed = [row for row in rows if row.kind == AuditKind.ACCESSED]
    assert {row.actor for row in accessed} == {"user:dr-read"}
    assert accessed[-1].study_key
    assert not any(word in str(row) for row in rows for word in (*WORDS, STUDY))


def test_while_nobody_reads_headers_the_page_says_so_and_shows_the_rest(tmp_path: Path, ledger: Ledger) -> None:
    reader = Session(Client(make_app(site(tmp_path), ledger)), ledger, Role.READ)
    shown = reader.get("/?names=1").text
    assert "name not available now" in shown
    assert "pneumonia" in shown
    assert "are not available now" in reader.get(f"/study/{STUDY}").text
    searched = reader.post("/search", q="ACC-9").text
    assert STUDY not in searched
    assert "Accession numbers are not all available now" in searched
    assert "available now" not in reader.get("/").text
    with ledger._read() as connection:
        details = [str(row.detail) for row in connection.execute(audit_records.select())]
    assert not any("identity" in detail for detail in details), "nobody was shown whose it is"


def test_who_signed_in_is_remembered_for_every_list_that_he_reads_once_in_a_while(
    tmp_path: Path, ledger: Ledger
) -> None:
    reader = Session(Client(make_app(site(tmp_path), ledger)), ledger, Role.READ)
    for _ in range(3):
        for path in ("/", "/parked", "/senders", "/pace"):
            assert reader.get(path).status_code == 200
    with ledger._read() as connection:
        rows = connection.execute(audit_records.select().where(audit_records.c.kind == AuditKind.ACCESSED)).all()
    assert [row.actor for row in rows] == ["user:dr-read"] * 4
    for what in ("worklist", "parked", "senders", "pace"):
        assert sum(what in str(row.detail) for row in rows) == 1, what


@pytest.mark.usefixtures("read")
def test_names_that_could_not_be_audited_are_not_shown_and_are_audited_when_they_are(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a whole list in one transaction, once in a while."""
    reader = Session(Client(make_app(site(tmp_path), ledger)), ledger, Role.READ)
    path = next(iter(ledger.first_images([STUDY]).values()))
    other = ledger.store.put("instances", "cd" * 32, ".dcm", ledger.store.read(path))
    ledger.admit(received("2.25.78", path=other), Completion(60.0))
    kept: list[tuple[AuditEvent, ...]] = []
    is_away = True

    def audit(*events: AuditEvent) -> None:
        identities = tuple(one for one in events if one.detail.get("what") == "identity")
        if identities and is_away:
            raise LedgerUnavailable("the disk is full")
        kept.append(identities)

    monkeypatch.setattr(ledger, "audit", audit)
    refused = reader.get("/?names=1")
    assert refused.status_code == 503
    assert [word for word in WORDS if word in refused.text] == []
    is_away = False
    for _ in range(3):
        assert "SENTINEL" in reader.get("/?names=1").text
    [named] = filter(None, kept)
    assert {one.study_uid for one in named} == {STUDY, "2.25.78"}


def test_a_stranger_reads_no_sentence_of_a_person(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_study, "_tree", lambda ledger, shown: [(0, "it says why")])
    (parked,) = ledger.parked()
    ledger.release(parked.job_id)
    for recalled in (False, True):
        if recalled:
            assert ledger.recall("is really Jane SENTINEL-WORD", STUDY) == 1
        while jobs := ledger.claim(Stage.REPORT, "test", 1, 60.0):
            made = [stored_object(ledger.store)]
            ledger.finish_report(jobs[0], ledger.study_findings(jobs[0]), made, ledgers.all_to(made, ["pacs"]))
    client = Client(make_app(site(tmp_path), ledger))
    reader = Session(client, ledger, Role.READ)
    known, unknown = reader.get(f"/study/{STUDY}").text, client.get(f"/study/{STUDY}").text
    assert "A person recalled the report: is really Jane SENTINEL-WORD" in known
    assert "SENTINEL" not in unknown
    assert "A person recalled the report (why is shown to who signed in)" in unknown
    assert "SENTINEL" not in client.get("/?since=7d").text
    withdrawn = replace(made_of(ledger.study_objects(STUDY))[0], report_kind=ReportKind.WITHDRAWN.value)
    assert page_study._report(ledger, withdrawn, None).tree
    assert page_study._report(ledger, withdrawn, Words([])).tree == ()


def test_a_stranger_reads_that_somebody_sends_by_stow_and_not_with_whose_token(tmp_path: Path, ledger: Ledger) -> None:
    ledger.observe({"STOW:dr.anna": Observed(3, 7), "CT1": Observed(1, 2)})
    because = "No image came for 60 s: how STOW:dr.anna sends is not known yet."
    ledger.admit(received("2.25.78", calling_ae_title="STOW:dr.anna"), Completion(60.0, because=because))
    client = Client(make_app(site(tmp_path), ledger))
    reader = Session(client, ledger, Role.READ)
    for path, said in (("/senders", "STOW"), ("/study/2.25.78", "how STOW sends")):
        unknown = client.get(path).text
        assert said in unknown, path
        assert "anna" not in unknown, path
        assert "STOW:dr.anna" in reader.get(path).text, path
    assert "how CT1 sends" in client.get("/senders").text
    assert any("anna" in event.text for event in ledger.events("2.25.78")), "it stands in what happened, too"


@pytest.mark.usefixtures("read")
def test_what_is_searched_is_in_no_address(tmp_path: Path, ledger: Ledger) -> None:
    reader = Session(Client(make_app(site(tmp_path), ledger)), ledger, Role.READ)
    assert "ACC-9" not in reader.get("/?q=ACC-9").text
    found = reader.post("/search", q="ACC-9", since="7d", priority="HIGH")
    assert (found.status_code, STUDY in found.text) == (200, True)
    addresses = re.findall(r"""(?:href|action|src|url)="?([^"\s>]+)""", found.text)
    assert [one for one in addresses if "ACC" in one or "csrf" in one] == []
    assert 'method="get"' not in found.text
    assert STUDY not in reader.post("/search", q="ACC-10").text
    chosen = reader.post("/search", q=" ", since="7d", priority="HIGH")
    assert (chosen.status_code, chosen.headers["location"]) == (303, "/?since=7d&priority=HIGH")
    assert reader.post("/search", q="ACC-9", csrf="0" * 64).status_code == 403
    assert reader.get("/search").headers["location"] == "/"


def test_reading_is_not_operating(tmp_path: Path, ledger: Ledger) -> None:
    client = Client(make_app(site(tmp_path), ledger))
    (job,) = ledger.parked()
    assert Session(client, ledger, Role.READ).post(f"/parked/{job.job_id}/release").status_code == 403
    operator = Session(client, ledger, Role.OPERATE)
    assert operator.post(f"/parked/{job.job_id}/release").headers["location"] == f"/parked?released={job.job_id}"
    assert ledger.parked() == []
    assert operator.post(f"/parked/{job.job_id}/release").status_code == 404


def test_an_opinion_needs_a_finding_and_a_page_of_ours(tmp_path: Path, ledger: Ledger) -> None:
    operator = Session(Client(make_app(site(tmp_path), ledger)), ledger, Role.OPERATE)
    (item,) = ledger.study_instances(STUDY)
    fields = {"instance": str(item.instance.instance_id), "model": "chest-pneumonia", "version": "1.0.0",
              "label": "pneumonia", "said": "disagree"}  # fmt: skip
    address = f"/study/{STUDY}/opinion"
    assert operator.post(address, **{**fields, "label": "tumour"}).status_code == 404
    assert operator.post(address, **{**fields, "said": "maybe"}).status_code == 422
    assert operator.post(address, **{**fields, "csrf": "0" * 64}).status_code == 403
    assert ledger.opinions_of(STUDY) == []
    assert operator.post(address, **fields).status_code == 303
    assert [one.agrees for one in ledger.opinions_of(STUDY)] == [False]
    assert "pneumonia,opinions,disagreements" in operator.get("/opinions.csv").text


def test_off_loopback_strangers_are_led_to_the_form(tmp_path: Path, ledger: Ledger) -> None:
    away = Client(make_app(site(tmp_path, host="192.0.2.1", insecure_plaintext=True), ledger))
    for path in (f"/study/{STUDY}", "/parked", "/senders", "/models", "/pace"):
        assert away.get(path).headers["location"] == "/sign-in", path
    assert away.request("POST", "/search", data={"q": "1"}).headers["location"] == "/sign-in"
    assert away.get("/sign-in").status_code == 200


def test_shadow_mode_and_what_is_wrong_stand_above_everything(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "own_echo", lambda settings, timeout_s: False)
    settings = Settings.model_validate({"node": {"state_dir": tmp_path, "mode": "shadow"}})
    text = Client(make_app(settings, ledger)).get("/parked").text
    assert "<b>Shadow mode.</b>" in text
    assert "the node&#39;s own C-ECHO was not answered" in text
    assert "Shadow mode" not in Client(make_app(site(tmp_path), ledger)).get("/").text


def test_a_study_that_never_came_is_not_found(tmp_path: Path, ledger: Ledger) -> None:
    client = Client(make_app(site(tmp_path), ledger))
    assert client.get("/study/1.2.3.4.5").status_code == 404
    assert client.get("/models/no/1").status_code == 404
    assert client.get("/models/chest-pneumonia/1.2.1/..%2fmanifest.json").status_code == 404


def test_there_is_no_table_of_opinions_that_nobody_gave(tmp_path: Path, ledger: Ledger) -> None:
    config = tmp_path / "site.toml"
    config.write_text(f'[node]\nstate_dir = "{tmp_path}"\n')
    done = CliRunner().invoke(app, ["opinions", "export", "--config", str(config)])
    assert done.exit_code == 1
    assert "nobody has given an opinion yet" in done.output
