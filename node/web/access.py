"""Who asks over HTTP, and what he may: a token in the header for programs, a session cookie for people.

    principal = await guard_of(request).require(request, Role.READ)     # ends with 401 or 403 otherwise
    await guard_of(request).accessed(request, principal, "study", study_uid)

A request that changes something and comes with a cookie must come from a page of ours: its Origin is checked, and it
carries the session's own token against forged requests in X-CSRF-Token or in the form's field `csrf`.
"""

import hmac
import math
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from config import Settings
from ledger.access import SECRET_MAX, Principal, Role, Shown, Standing
from ledger.audit import AuditEvent, AuditKind, Outcome
from ledger.ledger import Ledger
from node.web.failures import MOST, Failures
from node.web.problems import Problem

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
FORM: Final = "application/x-www-form-urlencoded"
CSRF_FIELD, CSRF_HEADER = "csrf", "X-CSRF-Token"
NOBODY: Final = "nobody"  # the actor of an attempt that no name belongs to
RENEWALS_S: Final = 300.0  # a page that renews itself is one access in so many seconds
RENEWALS_MAX: Final = 32_768  # fifty readers with a hundred names each, and as many again while the list moves on


class Guard:
    """One for the application: `app.state.guard`."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._ledger = ledger
        self._session_h = settings.web.session_max_h
        self._secure = settings.web.tls.enabled
        self.cookie = "__Host-opentriage" if self._secure else "opentriage"  # RFC 6265bis: the prefix needs Secure
        self._failures = Failures()
        self._seen: dict[tuple[str, ...], float] = {}

    # --- who asks ---

    async def principal(self, request: Request) -> Principal | None:
        """Who asks, None when nobody says who he is. Raises Problem: the token is no good, or the request is forged."""
        if hasattr(request.state, "principal"):
            return request.state.principal  # type: ignore[no-any-return]
        found = await self._by_header(request) if "authorization" in request.headers else await self._by_cookie(request)
        request.state.principal = found
        return found

    async def require(self, request: Request, role: Role) -> Principal:
        """Who asks, when he may: else Problem 401 or 403."""
        found = await self.principal(request)
        if found is None:
            raise _unauthorized("Give a token: 'Authorization: Bearer TOKEN'. `opentriage token create` makes one.")
        if not found.role.covers(role):
            detail = {"needed": role.value, "route": route_of(request), "method": request.method}
            await self._audit(
                AuditEvent(AuditKind.SECURITY_ALERT, found.actor, peer=peer_of(request),
                           outcome=Outcome.MINOR_FAILURE, detail=detail)
            )  # fmt: skip
            raise Problem(403, f"This needs a token with the role {role}; yours is {found.role}.")
        return found

    async def accessed(
        self, request: Request, principal: Principal, what: str, *study_uids: str, renewal: bool = False
    ) -> None:
        """Keep in the audit trail that somebody saw it, of each study. renewal: the page asked by itself; one in five
        minutes counts.

        Call before anything is shown. Raises LedgerUnavailable: what cannot be audited is not shown.
        """
        peer = peer_of(request)
        due = [
            uid for uid in study_uids or ("",) if not (renewal and self._is_fresh((principal.name, peer, what, uid)))
        ]
        if due:
            said = {"what": what}
            await self._audit(
                *(AuditEvent(AuditKind.ACCESSED, principal.actor, uid, peer=peer, detail=said) for uid in due)
            )
        if renewal:
            self._note((principal.name, peer, what, uid) for uid in due)

    async def audit(
        self,
        request: Request,
        principal: Principal,
        kind: AuditKind,
        study_uid: str = "",
        outcome: Outcome = Outcome.SUCCESS,
        **detail: Any,
    ) -> None:
        """Keep in the audit trail what somebody did."""
        event = AuditEvent(kind, principal.actor, study_uid, peer=peer_of(request), outcome=outcome, detail=detail)
        await self._audit(event)

    # --- sessions ---

    async def sign_in(self, request: Request, response: Response, token: str) -> Principal:
        """Open a session: `response` gets its cookie. Raises Problem: the token is no good, or the request forged."""
        _check_origin(request)
        shown = await run_in_threadpool(self._ledger.token_shown, token.strip())
        principal = await self._good_or_problem(request, shown)
        cookie = await run_in_threadpool(self._ledger.open_session, principal.name, self._session_h)
        response.set_cookie(self.cookie, cookie, secure=self._secure, httponly=True, samesite="strict", path="/")
        await self.audit(request, principal, AuditKind.AUTHENTICATION, what="sign_in", role=principal.role.value)
        return principal

    async def sign_out(self, request: Request, response: Response) -> None:
        """End the session that the request came with. Raises Problem: the request is forged."""
        principal = await self.principal(request)
        cookie = request.cookies.get(self.cookie)
        if cookie is not None:
            await run_in_threadpool(self._ledger.close_session, cookie)
        response.delete_cookie(self.cookie, secure=self._secure, httponly=True, samesite="strict", path="/")
        if principal is not None:
            await self.audit(request, principal, AuditKind.AUTHENTICATION, what="sign_out")

    def csrf_token(self, request: Request) -> str:
        """For the forms of a page, in a hidden field named `csrf`; empty without a session."""
        cookie = request.cookies.get(self.cookie)
        return csrf_of(cookie) if cookie else ""

    # --- inner ---

    async def _by_header(self, request: Request) -> Principal:
        scheme, _, secret = request.headers["authorization"].partition(" ")
        if scheme.lower() != "bearer" or not secret or len(secret) > SECRET_MAX:
            shown = Shown(Standing.UNKNOWN)
        else:
            shown = await run_in_threadpool(self._ledger.token_shown, secret.strip())
        return await self._good_or_problem(request, shown)

    async def _by_cookie(self, request: Request) -> Principal | None:
        cookie = request.cookies.get(self.cookie)
        if not cookie:
            return None
        shown = await run_in_threadpool(self._ledger.session_shown, cookie)
        if shown.principal is not None and request.method not in SAFE:
            await _check_not_forged(request, cookie)
        return shown.principal

    async def _good_or_problem(self, request: Request, shown: Shown) -> Principal:
        if shown.principal is not None:
            return shown.principal
        address = peer_of(request)
        count, wait_s = self._failures.add(address)
        if count <= MOST + 1:  # then nothing more until the address has been quiet: the trail is not to be flooded
            kind = AuditKind.AUTHENTICATION if count <= MOST else AuditKind.SECURITY_ALERT
            outcome = Outcome.MINOR_FAILURE if count <= MOST else Outcome.SERIOUS_FAILURE
            actor = f"user:{shown.name}" if shown.name else NOBODY
            detail = {"token": shown.standing.value, "failures": count}
            await self._audit(AuditEvent(kind, actor, peer=address, outcome=outcome, detail=detail))
        if wait_s:
            headers = {"Retry-After": str(math.ceil(wait_s))}
            raise Problem(429, "Too many tokens that are no good came from this address.", headers)
        raise _unauthorized("The token is not one of this node, has expired, or was revoked.", 'error="invalid_token"')

    def _is_fresh(self, key: tuple[str, ...]) -> bool:
        return monotonic() - self._seen.get(key, -math.inf) < RENEWALS_S

    def _note(self, keys: Iterable[tuple[str, ...]]) -> None:
        """Once it is in the audit trail, not before: what could not be kept is asked for again."""
        for key in keys:
            self._seen.pop(key, None)  # to its end: the oldest go first
            self._seen[key] = monotonic()
        while len(self._seen) > RENEWALS_MAX:
            del self._seen[next(iter(self._seen))]

    async def _audit(self, *events: AuditEvent) -> None:
        await run_in_threadpool(self._ledger.audit, *events)


def guard_of(request: Request) -> Guard:
    guard: Guard = request.app.state.guard
    return guard


def needs(role: Role) -> Callable[[Request], Awaitable[Principal]]:
    """For `Depends`: the principal of a route that takes no body (a body would be read before it is asked)."""

    async def principal(request: Request) -> Principal:
        return await guard_of(request).require(request, role)

    return principal


def csrf_of(cookie: str) -> str:
    """What the forms of a session carry: made of the cookie, which a page elsewhere cannot read."""
    return hmac.digest(cookie.encode(), b"csrf", "sha256").hex()


def peer_of(request: Request) -> str:
    """The address at the other end; what a proxy says of others behind it is not believed."""
    return request.client.host if request.client else ""


def route_of(request: Request) -> str:
    """The pattern of the path, without the UIDs in it; of a page the name of its handler."""
    scope = request.scope
    return str(getattr(scope.get("route"), "path", "") or getattr(scope.get("endpoint"), "__name__", ""))


async def _check_not_forged(request: Request, cookie: str) -> None:
    _check_origin(request)
    given = request.headers.get(CSRF_HEADER, "")
    if not given and request.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM:
        given = str((await request.form()).get(CSRF_FIELD, ""))
    if not hmac.compare_digest(given.encode(), csrf_of(cookie).encode()):
        raise Problem(403, "This request did not come from a page of this node; load the page again.")


def _check_origin(request: Request) -> None:
    """A browser names the page that a POST comes from; a program names none."""
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site", "same-origin")
    if (origin is not None and urlsplit(origin).netloc != request.headers.get("host")) or site != "same-origin":
        raise Problem(403, "This request did not come from a page of this node.")


def _unauthorized(detail: str, error: str = "") -> Problem:
    challenge = 'Bearer realm="OpenTriage"' + (f", {error}" if error else "")
    return Problem(401, detail, {"WWW-Authenticate": challenge})
