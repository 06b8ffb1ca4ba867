"""`opentriage send`."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from config.settings import OutgoingTls
from node.console import EXIT_FAILED, err, fail, progress, usage_error
from node.files import missing, walk
from node.logging import configure
from node.trying.sending import CALLING_AE_TITLE, NoAssociation, Peer, Sent, send_files

app = typer.Typer(add_completion=False)
_TLS = "TLS"  # their panel of the help


def _file(name: str, text: str) -> Any:
    """An option that names a file which is there."""
    return typer.Option(name, help=text, exists=True, dir_okay=False, show_default=False, rich_help_panel=_TLS)


@app.command()
def send(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="DICOM files, and folders of them.")],
    to: Annotated[str, typer.Option(metavar="AE@HOST:PORT", help="Who receives, e.g. OPENTRIAGE@127.0.0.1:11112.")],
    calling_ae: Annotated[
        str, typer.Option("--calling-ae", metavar="AE", help="The AE title to call as: one that the receiver knows.")
    ] = CALLING_AE_TITLE,
    tls: Annotated[
        bool, typer.Option("--tls", help="Speak TLS 1.2 or newer (PS3.15 B.12). Needs --ca-file.", rich_help_panel=_TLS)
    ] = False,
    ca_file: Annotated[Path | None, _file("--ca-file", "The authority of the receiver's certificate, in PEM.")] = None,
    cert_file: Annotated[
        Path | None, _file("--cert-file", "The certificate we show, with its chain: a node of ours asks for one.")
    ] = None,
    key_file: Annotated[Path | None, _file("--key-file", "Its key, in PEM, without a passphrase.")] = None,
    verify_host: Annotated[
        bool,
        typer.Option(
            "--verify-host/--no-verify-host",
            help="Whether its certificate must be of the host named by --to.",
            rich_help_panel=_TLS,
        ),
    ] = True,
) -> None:
    """Send DICOM files by C-STORE as they are: no byte of a data set is changed.

    Prints how many files got which status, and of each that was not stored, or
    stored with a warning, what was said. Exit status 0 when every file was
    stored, 1 when one was not or nobody took the association, 2 for wrong usage.

    To a node in TLS, with the certificates that `opentriage certs` made:

    opentriage send folder/ --to OPENTRIAGE@localhost:11112 --calling-ae CT1
    --tls --ca-file ca.pem --cert-file sender.pem --key-file sender.key
    """
    peer = _peer(to, calling_ae, _tls(tls, ca_file, cert_file, key_file, verify_host))
    if absent := missing(paths):
        usage_error(f"no such file or folder: {', '.join(map(str, absent))}")
    configure("warning", "send")  # to standard error
    sent: list[Sent] = []
    files = list(walk(paths))
    try:
        with progress() as bar:
            task = bar.add_task(f"sending to {escape(to)}", total=len(files))

            def note(one: Sent) -> None:
                sent.append(one)
                bar.advance(task)

            send_files(files, peer, note)
    except NoAssociation as error:
        fail(str(error))
    _summarise(sent)
    if not sent or not all(one.is_stored for one in sent):
        raise typer.Exit(EXIT_FAILED)


def _peer(to: str, calling_ae: str, tls: OutgoingTls) -> Peer:
    try:
        return Peer.parse(to, calling_ae, tls)
    except ValueError as error:
        usage_error(str(error))


def _tls(
    enabled: bool, ca_file: Path | None, cert_file: Path | None, key_file: Path | None, verify_host: bool
) -> OutgoingTls:
    """As `[destinations.tls]` has it."""
    named = {"--ca-file": ca_file, "--cert-file": cert_file, "--key-file": key_file}
    given = [option for option, file in named.items() if file is not None]
    if given and not enabled:
        usage_error(f"{', '.join(given)} without --tls: give --tls too, or it would be sent in the clear")
    if enabled and ca_file is None:
        usage_error("--tls needs --ca-file: the authority of the receiver's certificate, in PEM")
    if (cert_file is None) != (key_file is None):
        usage_error("--cert-file and --key-file belong together: give both, or neither")
    files = {"ca_file": ca_file, "certificate_file": cert_file, "key_file": key_file}
    there = {name: file for name, file in files.items() if file is not None}
    return OutgoingTls.model_validate({"enabled": enabled, "verify_host": verify_host, **there})


def _summarise(sent: list[Sent]) -> None:
    counts = Counter("not sent" if one.status is None else f"0x{one.status:04X}" for one in sent)
    for status, count in sorted(counts.items()):
        typer.echo(f"{status}\t{count}")
    for one in sent:
        if one.status != 0:
            err.print(f"{one.path}: {one.text or f'refused with status 0x{one.status or 0:04X}'}", markup=False)
