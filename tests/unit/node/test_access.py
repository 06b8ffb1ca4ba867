"""Who may what over HTTP: tokens, roles, sessions, forged requests, guessing; and that all of it is audited."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from config import Settings
from ledger.access import Principal, Role
from ledger.ledger import Ledger
from node.web.access import CSRF_HEADER, guard_of
from node.web.app import make_app
from node.web.failures import ADDRESSES_MAX, MOST, WINDOW_S, Failures
from node.wiring import open_ledger
from tests.support.asgi import Client

STUDY = "2.25.123456"


async def _operate(request: Request) -> Response:
    principal = await guard_of(request).require(request, Role.OPERATE)
    await guard_of(request).accessed(request, principal, "study", STUDY, renewal="renewal" in request.query_params)
    return JSONResponse({"name": principal.name})


async def _sign_in(request: Request) -> Response:
    response = Response()
    await guard_of(request).sign_in(request, response, str((await request.form())["token"]))
    return response


async def _sign_out(request: Request) -> Response:
    response = Response()
    await guard_of(request).sign_out(request, response)
    return response


async def _csrf(request: Request) -> Response:
    return Response(guard_of(request).csrf_token(request))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(Settings.model_validate({"node": {"state_dir": tmp_path}}))
    yield opened
    opened.close()


def app_of(ledger: Ledger, tmp_path: Path, web: dict[str, Any]) -> FastAPI:
    app = make_app(Settings.model_validate({"node": {"state_dir": tmp_path}, "web": web}), ledger)
    app.router.routes.extend(
        [
            Route("/operate/{uid}", _operate, methods=["GET", "POST"]),
            Route("/try-in", _sign_in, methods=["POST"]),
            Route("/try-out", _sign_out, methods=["POST"]),
            Route("/try-csrf", _csrf),
        ]
    )
    return app


@pytest.fixture
def client(ledger: Ledger, tmp_path: Path) -> Client:
    return Client(app_of(ledger, tmp_path, {}))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def trail(ledger: Ledger) -> list[Any]:
    with ledger._read() as connection:
        return list(connection.execute(text("SELECT * FROM audit_records ORDER BY id")).all())


def test_who_shows_no_token_one_of_too_small_a_role_or_none_of_ours_gets_nothing(
    client: Client, ledger: Ledger
) -> None:
    read, operate = (ledger.create_token(role, role, 1, "user:me") for role in (Role.READ, Role.OPERATE))
    expired = ledger.create_token("expired", Role.ADMIN, -1, "user:me")
    revoked = ledger.create_token("revoked", Role.ADMIN, 1, "user:me")
    ledger.revoke_token("revoked", "user:me")
    statuses = {
        "none": client.get(f"/operate/{STUDY}").status_code,
        "read": client.get(f"/operate/{STUDY}", headers=bearer(read)).status_code,
        "operate": client.get(f"/operate/{STUDY}", headers=bearer(operate)).status_code,
        "expired": client.get(f"/operate/{STUDY}", headers=bearer(expired)).status_code,
        "revoked": client.get(f"/operate/{STUDY}", headers=bearer(revoked)).status_code,
        "invented": client.get(f"/operate/{STUDY}", headers=bearer("ot_" + "x" * 43)).status_code,
        "long": client.get(f"/operate/{STUDY}", headers=bearer("x" * 5000)).status_code,
        "basic": client.get(f"/operate/{STUDY}", headers={"Authorization": "Basic eDp5"}).status_code,
    }
    assert statuses == {"none": 401, "read": 403, "operate": 200} | dict.fromkeys(
        ("expired", "revoked", "invented", "long", "basic"), 401
    )


def test_a_refusal_is_problem_details_and_says_how_to_do_better(client: Client) -> None:
    answer = client.get(f"/operate/{STUDY}")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].startswith("Bearer ")
    assert answer.json()["status"] == 401
    assert "opentriage token create" in answer.json()["detail"]
    assert STUDY not in answer.text


def test_every_access_and_every_refusal_is_audited_without_the_study(client: Client, ledger: Ledger) -> None:
    operate = ledger.create_token("ris", Role.OPERATE, 1, "user:me")
    read = ledger.create_token("dr.lee", Role.READ, 1, "user:me")
    before = len(trail(ledger))
    client.get(f"/operate/{STUDY}", headers=bearer(operate))
    client.get(f"/operate/{STUDY}", headers=bearer(read))
    client.get(f"/operate/{STUDY}", headers=bearer("ot_guess"))
    seen, small, guess = trail(ledger)[before:]
    assert (seen.kind, seen.actor, seen.outcome, seen.peer) == ("instances_accessed", "user:ris", 0, "127.0.0.1")
    assert seen.study_key != ""
    assert (small.kind, small.actor, small.outcome) == ("security_alert", "user:dr.lee", 4)
    assert json.loads(small.detail) == {"method": "GET", "needed": "operate", "route": "_operate"}
    assert (guess.kind, guess.actor, guess.outcome) == ("user_authentication", "nobody", 4)
    assert not any(STUDY in str(row) or "ot_" in str(row) for row in trail(ledger))


def test_a_page_that_renews_itself_is_one_access(client: Client, ledger: Ledger) -> None:
    operate = ledger.create_token("ris", Role.OPERATE, 1, "user:me")
    before = len(trail(ledger))
    for _ in range(3):
        client.get("/operate/1?renewal=1", headers=bearer(operate))
    assert len(trail(ledger)) == before + 1


def test_who_guesses_is_told_to_wait_and_a_good_token_from_there_still_is_good(client: Client, ledger: Ledger) -> None:
    good = ledger.create_token("ris", Role.OPERATE, 1, "user:me")
    before = len(trail(ledger))
    answers = [client.get("/operate/1", headers=bearer(f"ot_{n}")) for n in range(MOST + 5)]
    assert [answer.status_code for answer in answers] == [401] * MOST + [429] * 5
    assert int(answers[-1].headers["retry-after"]) >= 1
    kinds = [row.kind for row in trail(ledger)[before:]]
    assert kinds == ["user_authentication"] * MOST + ["security_alert"], "the trail is flooded"
    assert client.get("/operate/1", headers=bearer(good)).status_code == 200


def test_the_memory_of_failures_is_bounded_and_forgets() -> None:
    now = 0.0
    failures = Failures(lambda: now)
    for number in range(ADDRESSES_MAX + 10):
        failures.add(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(failures._seen) == ADDRESSES_MAX
    assert [failures.add(f"2001:db8::{n}")[0] for n in range(1, 4)] == [1, 2, 3], "an IPv6 network counts as one"
    now = WINDOW_S + 1
    assert failures.add("2001:db8::1") == (1, 0.0)


def signed_in(client: Client, ledger: Ledger) -> tuple[httpx.Response, dict[str, str]]:
    token = ledger.create_token("dr.lee", Role.OPERATE, 1, "user:me")
    answer = client.request("POST", "/try-in", data={"token": f" {token}\n"})
    return answer, {"Cookie": answer.headers["set-cookie"].partition(";")[0]}


def test_a_session_cookie_is_out_of_reach_of_scripts_and_other_sites(client: Client, ledger: Ledger) -> None:
    answer, cookie = signed_in(client, ledger)
    flags = {part.strip().lower() for part in answer.headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= flags
    assert client.get("/operate/1", headers=cookie).json() == {"name": "dr.lee"}


def test_over_tls_the_cookie_is_secure_and_bound_to_the_host(ledger: Ledger, tmp_path: Path) -> None:
    tls = {"certificate_file": "a.pem", "key_file": "b.pem"}
    answer, _ = signed_in(Client(app_of(ledger, tmp_path, {"tls": tls})), ledger)
    assert answer.headers["set-cookie"].startswith("__Host-opentriage=")
    assert "secure" in answer.headers["set-cookie"].lower()


def test_what_a_cookie_changes_must_come_from_a_page_of_ours(client: Client, ledger: Ledger) -> None:
    _, cookie = signed_in(client, ledger)
    csrf = client.get("/try-csrf", headers=cookie).text
    ours = {"Origin": "http://127.0.0.1", **cookie}

    def post(**options: Any) -> int:
        return client.request("POST", "/operate/1", **options).status_code

    assert post(headers=ours | {CSRF_HEADER: csrf}) == 200
    assert post(headers=ours, data={"csrf": csrf}) == 200
    assert post(headers=ours) == 403
    assert post(headers=ours, data={"csrf": csrf[:-1] + "?"}) == 403
    assert post(headers={**cookie, "Origin": "http://evil.example", CSRF_HEADER: csrf}) == 403
    assert post(headers={**cookie, "Origin": "null", CSRF_HEADER: csrf}) == 403
    assert post(headers={**cookie, "Sec-Fetch-Site": "cross-site", CSRF_HEADER: csrf}) == 403


def test_signing_out_ends_the_session_and_needs_a_page_of_ours(client: Client, ledger: Ledger) -> None:
    _, cookie = signed_in(client, ledger)
    csrf = client.get("/try-csrf", headers=cookie).text
    assert client.request("POST", "/try-out", headers=cookie).status_code == 403
    assert client.request("POST", "/try-out", headers=cookie | {CSRF_HEADER: csrf}).status_code == 200
    assert client.get("/operate/1", headers=cookie).status_code == 401


def test_nobody_is_signed_in_with_a_bad_token_or_from_elsewhere(client: Client, ledger: Ledger) -> None:
    assert client.request("POST", "/try-in", data={"token": "ot_guess"}).status_code == 401
    token = ledger.create_token("dr.lee", Role.READ, 1, "user:me")
    forged = client.request("POST", "/try-in", data={"token": token}, headers={"Origin": "http://evil.example"})
    assert forged.status_code == 403
    assert "set-cookie" not in forged.headers


def test_off_loopback_the_bare_page_health_and_metrics_need_a_token_too(ledger: Ledger, tmp_path: Path) -> None:
    away = {"host": "192.0.2.1", "insecure_plaintext": True}
    client = Client(app_of(ledger, tmp_path, away))
    token = ledger.create_token("prometheus", Role.READ, 1, "user:me")
    assert [client.get(path).status_code for path in ("/", "/healthz", "/metrics")] == [401] * 3
    assert client.get("/", headers={"Accept": "text/html"}).headers["location"] == "/sign-in"
    assert client.get("/metrics", headers=bearer(token)).status_code == 200
    opened = Client(app_of(ledger, tmp_path, away | {"open_off_loopback": True}))
    assert opened.get("/metrics").status_code == 200


def test_off_loopback_without_tls_is_refused_at_the_door() -> None:
    with pytest.raises(ValueError, match="in the clear"):
        Settings.model_validate({"web": {"host": "0.0.0.0"}})
    with pytest.raises(ValueError, match="belong together"):
        Settings.model_validate({"web": {"tls": {"key_file": "key.pem"}}})


def test_an_address_or_method_that_is_not_there_is_a_problem(client: Client) -> None:
    for answer, status in ((client.get("/nothing/SMITH"), 404), (client.request("DELETE", "/metrics"), 405)):
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert "SMITH" not in answer.text


def test_roles_are_names_in_the_ledger(ledger: Ledger) -> None:
    secret = ledger.create_token("one", Role.ADMIN, 1, "user:me")
    assert ledger.token_shown(secret).principal == Principal("one", Role.ADMIN)
