"""`opentriage certs`."""

import re
import socket
from pathlib import Path
from typing import Annotated

import typer

from node.console import err, fail, out, usage_error

app = typer.Typer(add_completion=False, no_args_is_help=True)
DAYS_MAX = 3650
LOOKED_AT = 65536
_LABEL = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
_OTHERWISE = {
    b"X509 CRL": "a revocation list",
    b"CERTIFICATE REQUEST": "a request for a certificate",
    b"NEW CERTIFICATE REQUEST": "a request for a certificate",
    b"PUBLIC KEY": "a public key",
}


@app.callback()
def certs() -> None:
    """Certificates to try TLS with, and what a certificate says of itself.

    The authority made here is for tests: its key lies beside what it signs. For patients ask the hospital's own
    authority; docs/tls.md says for what.
    """


@app.command()
def make(
    folder: Annotated[Path, typer.Argument(help="A folder for the files; made where it is missing.")],
    host: Annotated[
        list[str] | None,
        typer.Option(help="A name or address that senders call this node by; repeat it. Default: this machine's."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=DAYS_MAX, help="How long everything is valid.")] = 90,
) -> None:
    """Make a test authority, certificates of the node, of a sender (or a PACS) and of the web page, and a revocation
    list; print the settings that use them. Nothing that exists is overwritten. Keys are readable for you alone.
    """
    from node.trying import authority

    hosts = host or list(dict.fromkeys(["localhost", "127.0.0.1", "::1", socket.gethostname()]))
    try:
        files = authority.make(folder, hosts, days)
    except FileExistsError as error:
        fail(f"{error}: nothing was written; name another folder, or remove what is there first")
    except (OSError, ValueError) as error:
        fail(f"cannot make certificates in {folder}: {getattr(error, 'strerror', None) or error}")
    err.print(f"made {len(files)} files in {folder}, valid for {days} days, for {', '.join(hosts)}", markup=False)
    err.print("FOR TESTS ONLY: whoever reads ca.key can be anybody. Keep the folder to yourself.", style="yellow")
    out.print(_lines(folder.absolute(), authority.known_of(folder / "sender.pem").sha256), markup=False)


@app.command()
def show(file: Annotated[Path, typer.Argument(help="A certificate in PEM.")]) -> None:
    """Print a certificate's fingerprint and names, to which `peers` binds an AE title, and until when it is valid."""
    from node.trying import authority

    try:
        known = authority.known_of(file)
    except (OSError, ValueError) as error:
        fail(f"{file} {_instead(file) or f'cannot be read as a certificate in PEM ({type(error).__name__})'}")
    names = ", ".join(f'"{name}"' for name in known.names)
    out.print(f"# subject {known.subject}, issuer {known.issuer}", markup=False)
    out.print(f"# valid until {known.ends:%Y-%m-%d %H:%M:%S} UTC", markup=False)
    out.print(f'certificate_sha256 = ["{known.sha256}"]\ncertificate_names = [{names}]', markup=False)


def _instead(file: Path) -> str:
    """What a file of PEM holds that is no certificate: its label says so (RFC 7468). Nothing of it is repeated."""
    try:
        label = _LABEL.search(file.read_bytes()[:LOOKED_AT])
    except OSError:
        return ""
    if label is None:
        return ""
    if label[1].endswith(b"PRIVATE KEY"):
        return "is a private key and no certificate: keep it to yourself, and name the certificate that belongs to it"
    said = _OTHERWISE.get(label[1])
    return f"is {said} and no certificate" if said else ""


@app.command()
def revoke(
    folder: Annotated[Path, typer.Argument(help="The folder that `certs make` wrote.")],
    certificate: Annotated[Path, typer.Argument(help="The certificate, in PEM, that shall let nobody in any more.")],
    days: Annotated[int, typer.Option(min=1, max=DAYS_MAX, help="Until the list must be renewed.")] = 30,
) -> None:
    """Put a certificate on the test authority's revocation list; a node whose crl_file it is knows a second later."""
    from node.trying import authority

    if not (folder / "ca.key").is_file():
        usage_error(f"{folder} holds no authority of `opentriage certs make`")
    try:
        count = authority.revoke(folder, certificate, days)
    except (OSError, ValueError) as error:
        fail(f"not revoked: {getattr(error, 'strerror', None) or error}")
    err.print(f"{folder / authority.REVOKED}: {count} revoked", markup=False)


def _lines(folder: Path, sender_sha256: str) -> str:
    return f"""\
# For the settings file. A sender shows sender.pem with sender.key and trusts ca.pem.
[receive.tls]
enabled = true
certificate_file = "{folder}/node.pem"
key_file = "{folder}/node.key"
ca_file = "{folder}/ca.pem"
crl_file = "{folder}/revoked.pem"

[web.tls]
certificate_file = "{folder}/web.pem"
key_file = "{folder}/web.key"

# Below the [[destinations]] that speaks TLS:
# [destinations.tls]
# enabled = true
# ca_file = "{folder}/ca.pem"
# certificate_file = "{folder}/node.pem"
# key_file = "{folder}/node.key"

# To let an AE title be used with the sender's certificate alone:
# [[peers]]
# ae_title = "MODALITY"
# certificate_sha256 = ["{sender_sha256}"]"""
