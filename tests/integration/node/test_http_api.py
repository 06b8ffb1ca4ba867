"""The interface for programs over a real server: uploads are judged, studies told, nothing is had without a token."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from PIL import Image

from ledger.access import Role
from ledger.audit import AuditKind
from ledger.records import InstanceRef, Stage
from ledger.trail import Asked
from node.looking.second import failed
from node.looking.wire import uploads_dir
from node.telling.explain_output import plain
from node.web.api_schemas import Analysis, Batch, Study
from node.web.problems import MEDIA_TYPE
from node.web.uploads import sweep
from tests.support import ledgers
from tests.support.chests import bright, dark, save
from tests.support.serving import Served, serving, settings_in

PATIENT = "SENTINEL^PATIENT"
ROUTES = [
    ("POST", "/analyze", Role.READ),
    ("POST", "/batch_analyze", Role.READ),
    ("GET", "/worklist", Role.READ),
    ("GET", "/studies/2.25.1", Role.READ),
    ("GET", "/openapi.json", Role.READ),
    ("GET", "/docs", Role.READ),
    ("POST", "/studies", Role.OPERATE),
    ("POST", "/studies/2.25.1", Role.OPERATE),
    ("POST", "/jobs/1/release", Role.OPERATE),
    ("GET", "/audit_log", Role.ADMIN),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(settings_in(tmp_path_factory.mktemp("web"), look_timeout_s=20), looks=True) as made:
        yield made


@pytest.fixture(scope="module")
def chest(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return save(bright(PatientName=PATIENT, PatientID=PATIENT), tmp_path_factory.mktemp("chest")).read_bytes()


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(180, 220, (256, 256)).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def post(served: Served, path: str, *files: bytes, **fields: str) -> httpx.Response:
    with served.client(Role.READ) as client:
        return client.post(path, files=[("file", (f"{PATIENT}.dcm", content)) for content in files], data=fields)


@pytest.mark.parametrize(("method", "path", "role"), ROUTES)
def test_every_address_needs_a_token_of_its_role(served: Served, method: str, path: str, role: Role) -> None:
    with served.client() as client:
        without = client.request(method, path)
    assert (without.status_code, without.headers["content-type"]) == (401, MEDIA_TYPE)
    for less in Role:
        with served.client(less) as client:
            answer = client.request(method, path)
        assert (answer.status_code == 403) is not less.covers(role), less


def test_an_uploaded_dicom_file_is_judged_and_nothing_of_it_stays(served: Served, chest: bytes) -> None:
    answer = post(served, "/analyze", chest)
    said = Analysis.model_validate(answer.json())
    assert answer.status_code == 200
    assert said.priority == "HIGH"
    assert said.critical_flags == ["RESPIRATORY_EMERGENCY"]
    assert said.recommendations[0] == "Read with priority."
    (odds,) = said.probabilities
    assert odds.present + odds.absent == pytest.approx(1.0)
    assert odds.present > 0.8
    assert odds.sd > 0
    assert said.duration_ms > 0
    assert said.results[0].model is not None
    assert PATIENT not in answer.text
    assert not list(uploads_dir(served.settings).iterdir())
    assert served.ledger.counts()["jobs"].get("analyse", 0) == 0


def test_a_picture_is_judged_as_what_it_is_told_to_show(served: Served) -> None:
    answer = post(served, "/analyze", png(), **{"as": "chest-xray", "age": "3"})
    assert answer.json()["results"][0]["unverified_input"] is True
    untold = post(served, "/analyze", png())
    assert untold.status_code == 422
    assert "chest-xray" in untold.json()["detail"]


@pytest.mark.parametrize(
    ("files", "fields", "status"),
    [
        ([], {}, 422),
        ([b"no image"], {}, 422),
        ([b"x", b"y"], {}, 422),
        ([b"\x89PNG\r\n\x1a\n"], {"as": "chest-xray", "age": "old"}, 422),
        ([b"\x89PNG\r\n\x1a\n"], {"as": "chest-xray", "age": "nan"}, 422),
        ([b"\x89PNG\r\n\x1a\n"], {"as": "chest-xray", "age": "1_0"}, 422),
        ([b"\x89PNG\r\n\x1a\n"], {"as": "chest-xray", "age": "\uff11\uff12"}, 422),
        ([b"\x89PNG\r\n\x1a\n"], {"as": "chest-xray", "age": "1e999"}, 422),
        ([b"\x89PNG\r\n\x1a\n"], {"as": "../../etc"}, 422),
        ([b"x"], {"as": "a" * 200}, 422),
        ([b"x"], {"other": "1"}, 422),
    ],
)
def test_what_is_no_image_is_a_problem(served: Served, files: list[bytes], fields: dict[str, str], status: int) -> None:
    with served.client(Role.READ) as client:
        parts: list[Any] = [("file", ("x", content)) for content in files]
        answer = client.post("/analyze", files=parts or [("as", (None, b"chest-xray"))], data=fields)
    assert (answer.status_code, answer.headers["content-type"]) == (status, MEDIA_TYPE), answer.text
    assert not list(uploads_dir(served.settings).iterdir())


def test_one_bad_file_of_many_spoils_none_of_the_others(served: Served, chest: bytes, tmp_path: Path) -> None:
    other = save(dark(), tmp_path).read_bytes()
    answer = post(served, "/batch_analyze", chest, b"no image", chest[:1000], other)
    said = Batch.model_validate(answer.json())
    assert answer.status_code == 200
    first, second, third, fourth = said.items
    assert first.analysis is not None
    assert first.analysis.priority == "HIGH"
    assert second.problem is not None
    assert second.problem.status == 422
    assert third.analysis is not None
    assert third.analysis.priority != "HIGH", "what is cut off was judged"
    assert fourth.analysis is not None
    assert fourth.analysis.priority == "LOW"
    assert said.failed == 1
    assert not list(uploads_dir(served.settings).iterdir())


def test_an_upload_while_routed_images_are_judged_is_asked_to_come_back(served: Served, chest: bytes) -> None:
    with serving(settings_in(served.settings.node.state_dir.parent, look_timeout_s=0.3)) as impatient:
        with served.turns.routed():
            answer = post(impatient, "/analyze", chest)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert answer.headers["content-type"] == MEDIA_TYPE


def test_without_an_analyser_an_upload_is_asked_to_come_back(tmp_path: Path, chest: bytes) -> None:
    with serving(settings_in(tmp_path)) as alone:
        answer = post(alone, "/analyze", chest)
        assert answer.status_code == 503
        assert "no analyser is running" in answer.json()["detail"]
        assert not list(uploads_dir(alone.settings).iterdir())


def test_what_a_killed_process_left_of_uploads_is_swept(served: Served) -> None:
    left = uploads_dir(served.settings) / "123-abc.upload"
    left.touch(0o600)
    assert sweep(served.settings) == 1
    assert not left.exists()


def test_the_worklist_is_the_commands_and_has_pages(served: Served) -> None:
    for number in (11, 12, 13):
        ledgers.admit(served.ledger, number)
    with served.client(Role.READ) as client:
        first = client.get("/worklist", params={"limit": 2}).json()
        second = client.get("/worklist", params={"limit": 2, "offset": first["next"]}).json()
        assert [client.get("/worklist", params={"limit": limit}).status_code for limit in (0, 501)] == [422, 422]
    uids = [line["study_instance_uid"] for line in (*first["items"], *second["items"])]
    assert len(uids) == len(set(uids)) == len(served.ledger.worklist())
    assert second["next"] is None


@pytest.mark.parametrize("written", ["1_0", "\uff11\uff12", "+5", "5.0", " 5", "0x5", ""])
def test_a_number_is_written_in_digits_and_in_nothing_else(served: Served, written: str) -> None:
    with served.client(Role.ADMIN) as client:
        answers = [client.get("/worklist", params={name: written}) for name in ("days", "limit", "offset")] + [
            client.get("/audit_log", params={name: written}) for name in ("before", "limit")
        ]
        if written:
            answers.append(client.post(f"/jobs/{quote(written)}/release"))
    assert {(answer.status_code, answer.headers["content-type"]) for answer in answers} == {(422, MEDIA_TYPE)}


@pytest.mark.parametrize("path", ["/worklist/", "/sign-in/", "/studies/1.2/", "/parked/"])
def test_no_address_is_led_on_to_where_the_host_header_says(served: Served, path: str) -> None:
    with served.client(Role.ADMIN, follow_redirects=False) as client:
        answer = client.get(path, headers={"Host": "localhost:1"})
    assert (answer.status_code, answer.headers.get("location")) == (404, None)


def test_a_study_tells_what_explain_tells(served: Served) -> None:
    received = ledgers.admit(served.ledger, 21)
    with served.client(Role.READ) as client:
        answer = client.get(f"/studies/{received.study_instance_uid}")
        unknown, invalid = client.get("/studies/2.25.999"), client.get("/studies/1.2.x")
    said = Study.model_validate(answer.json())
    assert said.events
    assert said.images[0]["sop_instance_uid"] == received.sop_instance_uid
    assert "path" not in plain(InstanceRef(1, "", "", "", "", "", "", "", "a/b", received.received_at)), (
        "files lie there"
    )
    assert (unknown.status_code, invalid.status_code) == (404, 422)


def test_a_parked_job_is_released_by_who_may_and_once(served: Served) -> None:
    received = ledgers.admit(served.ledger, 31)
    jobs = served.ledger.claim(Stage.ANALYSE, "test", 50, 60.0)
    job = next(one for one in jobs if one.study_instance_uid == received.study_instance_uid)
    served.ledger.park(job, "The decoder died.", failed("The decoder died."))
    with served.client(Role.OPERATE) as client:
        first, again = (client.post(f"/jobs/{job.job_id}/release") for _ in range(2))
    assert (first.status_code, first.json()) == (200, {"job_id": job.job_id, "stage": "analyse"})
    assert again.status_code == 404
    lines = served.ledger.audit_log(Asked(kind=AuditKind.OPERATED))
    assert lines[0].actor.startswith("user:operate")


def test_the_audit_trail_is_read_in_pages_and_that_is_in_the_trail(served: Served) -> None:
    with served.client(Role.ADMIN) as client:
        newest = client.get("/audit_log", params={"limit": 3}).json()
        older = client.get("/audit_log", params={"limit": 3, "before": newest["next"]}).json()
        used = client.get("/audit_log", params={"kind": "audit_log_used"}).json()["items"]
        wrong = [
            client.get("/audit_log", params=params).status_code
            for params in ({"kind": "x"}, {"limit": 5000}, {"since": "yesterday"}, {"since": "2026-01-01T00:00:00"})
        ]
    ids = [line["record_id"] for line in (*newest["items"], *older["items"])]
    assert ids == sorted(ids, reverse=True)
    assert len(set(ids)) == 6
    assert len(used) >= 3
    assert used[0]["actor"].startswith("user:admin")
    assert wrong == [422] * 4


def test_every_look_is_in_the_trail_without_saying_at_what(served: Served, chest: bytes) -> None:
    received = ledgers.admit(served.ledger, 41)
    with served.client(Role.READ) as client:
        client.get(f"/studies/{received.study_instance_uid}")
        client.get("/worklist")
    post(served, "/analyze", chest)
    analysed, listed, looked = served.ledger.audit_log(limit=3)
    assert (analysed.kind, analysed.detail["what"]) == (AuditKind.ANALYSED, "upload")
    assert (listed.kind, listed.detail["what"]) == (AuditKind.ACCESSED, "worklist")
    assert (looked.kind, looked.detail["what"]) == (AuditKind.ACCESSED, "study")
    assert served.ledger.audit_log(Asked(study_uid=received.study_instance_uid))[0].record_id == looked.record_id
    assert received.study_instance_uid not in repr(looked)


def test_the_documents_need_nothing_from_elsewhere_and_every_route_is_in_them(served: Served) -> None:
    with served.client(Role.READ) as client:
        document, page = client.get("/openapi.json").json(), client.get("/docs")
    paths = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert {(method, path.replace("2.25.1", "{study_uid}").replace("/1/", "/{job_id}/")) for method, path, _ in ROUTES
            if path not in ("/openapi.json", "/docs")} == paths  # fmt: skip
    assert "http://" not in page.text.replace("http://127.0.0.1:8042", "")
    assert "https://" not in page.text
    assert "<script" not in page.text
    assert all(path in page.text for _, path in paths)
    assert (
        "script-src" not in page.headers["content-security-policy"]
        or "unsafe" not in page.headers["content-security-policy"]
    )
    assert json.dumps(document["components"]["securitySchemes"]["token"]).count("bearer") == 1
