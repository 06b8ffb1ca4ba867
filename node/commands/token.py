"""`opentriage token`."""

import json
import re
from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table

from ledger.access import NameTaken, Role, TokenFacts
from node.asking import existing_ledger
from node.console import ConfigOption, JsonOption, err, fail, out, settings_of, usage_error
from node.trail.auditing import person

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
DAYS_MAX = 3650
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Who may use the HTTP interface and see more than the bare page: make, list and revoke access tokens. "
    "A token has one of three roles: read (see studies, have images looked at), operate (also release jobs, send "
    "studies in, give opinions), admin (also read the audit trail).",
)
NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Of the person or program; it stands in the audit trail. Never a patient.")
]


@app.command()
def create(
    name: NameArgument,
    role: Annotated[Role, typer.Option(help="What it is good for.")] = Role.READ,
    days: Annotated[
        int, typer.Option(min=1, max=DAYS_MAX, metavar="DAYS", help="It holds for so many days from now.")
    ] = 90,
    never_expires: Annotated[bool, typer.Option("--never-expires", help="It holds until it is revoked.")] = False,
    config: ConfigOption = None,
) -> None:
    """Make a token and print it, this once: the node keeps only its hash.

    It is sent as `Authorization: Bearer TOKEN`, or typed into the page's sign-in. Standard output is the token alone,
    so that it can go straight into a file: umask 077; opentriage token create ris --role operate > ris.token
    """
    if not NAME.fullmatch(name):
        usage_error("a name is 1 to 64 letters, digits, and . _ @ - and begins with a letter or digit: dr.lee, ris-1")
    ledger = existing_ledger(settings_of(config))
    try:
        secret = ledger.create_token(name, role, None if never_expires else days, person())
    except NameTaken as error:
        usage_error(str(error))
    err.print(f"{name} may {role.value} {_until(None if never_expires else days)}; this is shown once:", markup=False)
    typer.echo(secret)


@app.command("list")
def list_(as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """List every token there ever was.

    Name, role, since when, until when; the tokens themselves are kept nowhere.
    """
    known = existing_ledger(settings_of(config)).tokens()
    if as_json:
        for one in known:
            typer.echo(json.dumps(_line(one)))
        return
    if not known:
        err.print("there is no token: `opentriage token create NAME` makes one")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("NAME", "ROLE", "MADE", "UNTIL", "STATE"):
        table.add_column(title)
    for one in known:
        until = f"{one.expires_at.astimezone():%Y-%m-%d %H:%M}" if one.expires_at else "for ever"
        table.add_row(one.name, one.role.value, f"{one.created_at.astimezone():%Y-%m-%d %H:%M}", until, _state(one))
    out.print(table)


@app.command()
def revoke(name: NameArgument, config: ConfigOption = None) -> None:
    """End a token at once, and every session that was opened with it.

    Its name is not given again.
    """
    if not existing_ledger(settings_of(config)).revoke_token(name, person()):
        fail(f"there is no token in force named {name!r}; `opentriage token list` shows all")
    err.print(f"{name} is revoked", markup=False)


def _state(one: TokenFacts) -> str:
    if one.revoked_at:
        return "revoked"
    return "expired" if one.is_expired else "good"


def _line(one: TokenFacts) -> dict[str, str | None]:
    return {
        "name": one.name,
        "role": one.role.value,
        "state": _state(one),
        "created_at": one.created_at.isoformat(),
        "expires_at": _iso(one.expires_at),
        "revoked_at": _iso(one.revoked_at),
    }


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at else None


def _until(days: int | None) -> str:
    return f"for {days} days" if days else "until it is revoked"
