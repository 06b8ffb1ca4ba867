"""Tokens and sessions, over both databases."""

import pytest
from sqlalchemy import text

from ledger.access import PREFIX, NameTaken, Role, Standing
from ledger.ledger import Ledger

ME = "user:somebody"


def test_a_token_is_good_under_its_name_and_role(ledger: Ledger) -> None:
    secret = ledger.create_token("reader", Role.READ, 1, ME)
    shown = ledger.token_shown(secret)
    assert secret.startswith(PREFIX)
    assert shown.standing is Standing.GOOD
    assert shown.principal is not None
    assert (shown.principal.name, shown.principal.role) == ("reader", Role.READ)
    assert ledger.token_shown(secret + "x").standing is Standing.UNKNOWN
    assert ledger.token_shown("").standing is Standing.UNKNOWN


def test_nothing_that_was_handed_out_is_in_the_database(ledger: Ledger) -> None:
    secret = ledger.create_token("reader", Role.READ, 1, ME)
    cookie = ledger.open_session("reader", 1)
    with ledger._read() as connection:
        for table in ("access_tokens", "web_sessions", "audit_records"):
            rows = connection.execute(text(f"SELECT * FROM {table}")).all()
            assert rows
            assert not any(kept in str(row) for row in rows for kept in (secret, secret[len(PREFIX) :], cookie))


def test_an_expired_token_is_known_and_no_good(ledger: Ledger) -> None:
    secret = ledger.create_token("old", Role.ADMIN, -1, ME)
    shown = ledger.token_shown(secret)
    assert (shown.standing, shown.principal, shown.name) == (Standing.EXPIRED, None, "old")
    assert [one.is_expired for one in ledger.tokens()] == [True]


def test_a_token_without_an_end_holds_until_it_is_revoked(ledger: Ledger) -> None:
    secret = ledger.create_token("machine", Role.OPERATE, None, ME)
    assert ledger.token_shown(secret).standing is Standing.GOOD
    assert ledger.revoke_token("machine", ME)
    assert ledger.token_shown(secret).standing is Standing.REVOKED
    assert not ledger.revoke_token("machine", ME)


def test_a_name_is_given_once_even_after_its_token_was_revoked(ledger: Ledger) -> None:
    ledger.create_token("reader", Role.READ, 1, ME)
    ledger.revoke_token("reader", ME)
    with pytest.raises(NameTaken, match="only once"):
        ledger.create_token("reader", Role.ADMIN, 1, ME)


def test_a_session_ends_with_sign_out_with_its_time_and_with_its_token(ledger: Ledger) -> None:
    ledger.create_token("reader", Role.READ, 1, ME)
    first, second, short = (ledger.open_session("reader", hours) for hours in (1, 1, -1))
    principal = ledger.session_shown(first).principal
    assert principal is not None
    assert principal.actor == "user:reader"
    assert ledger.session_shown(short).standing is Standing.UNKNOWN
    assert ledger.close_session(first)
    assert ledger.session_shown(first).standing is Standing.UNKNOWN
    ledger.revoke_token("reader", ME)
    assert ledger.session_shown(second).standing is Standing.UNKNOWN


def test_a_session_does_not_outlive_the_day_its_token_ends(ledger: Ledger) -> None:
    ledger.create_token("reader", Role.READ, 1, ME)
    cookie = ledger.open_session("reader", 1)
    with ledger._write() as connection:
        connection.execute(text("UPDATE access_tokens SET expires_at = 1"))
    assert ledger.session_shown(cookie).standing is Standing.EXPIRED


def test_making_and_ending_a_token_is_in_the_audit_trail(ledger: Ledger) -> None:
    ledger.create_token("reader", Role.READ, 1, ME)
    ledger.revoke_token("reader", "user:chief")
    with ledger._read() as connection:
        rows = connection.execute(text("SELECT kind, actor, detail FROM audit_records ORDER BY id")).all()
    assert [(row.kind, row.actor) for row in rows] == [
        ("configuration_changed", ME),
        ("configuration_changed", "user:chief"),
    ]
    assert '"role":"read"' in rows[0].detail


@pytest.mark.parametrize("role", list(Role))
def test_a_role_covers_itself_and_what_is_below(role: Role) -> None:
    order = list(Role)
    assert [role.covers(other) for other in order] == [order.index(other) <= order.index(role) for other in order]
