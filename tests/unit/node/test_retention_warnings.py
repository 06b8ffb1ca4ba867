"""What check-config says of shadow mode and of retention."""

from config import Settings
from node.commands.retention_warnings import retention_warnings

BLIND = {"name": "blind", "ae_title": "PACS", "host": "localhost", "port": 104, "proof": []}
CT1 = {"ae_title": "CT1", "host": "localhost", "port": 104, "retention_days": 60}


def said(**values: object) -> str:
    return "\n".join(retention_warnings(Settings.model_validate(values)))


def test_shadow_mode_is_said_and_a_plain_node_has_nothing_to_say() -> None:
    assert "shadow, so nothing new is sent" in said(node={"mode": "shadow"})
    assert said(destinations=[BLIND], commitment_requestors=[CT1]) == ""


def test_what_would_never_be_removed_is_named_with_the_setting() -> None:
    assert "blind are never removed" in said(retention={"images_days": 30}, destinations=[BLIND])
    accepted = {"images_days": 30, "without_proof": "accepted"}
    assert said(retention=accepted, destinations=[BLIND]) == ""


def test_a_promise_that_is_longer_than_retention_is_named() -> None:
    assert "CT1@localhost:104 sent is kept for 60 days" in said(
        retention={"images_days": 30}, commitment_requestors=[CT1]
    )


def test_what_is_deleted_on_the_word_of_an_ae_title_is_warned_of() -> None:
    pacs = {**BLIND, "proof": ["commitment", "find"]}
    retention = {"images_days": 30}
    said_of = said(retention=retention, destinations=[pacs])
    assert "blind has answered that it keeps the report" in said_of
    assert "[[peers]] entry with its certificate" in said_of
    assert said(destinations=[pacs]) == ""  # nothing is deleted
    assert said(retention=retention, destinations=[{**pacs, "proof": ["find"]}]) == ""
    assert said(retention=retention | {"without_proof": "accepted"}, destinations=[pacs]) == ""
    files = {"certificate_file": "/n.pem", "key_file": "/n.key", "ca_file": "/ca.pem"}
    bound = {"receive": {"tls": {"enabled": True, **files}}}
    peer = {"ae_title": "PACS", "certificate_names": ["pacs"]}
    assert said(retention=retention, destinations=[pacs], peers=[peer], **bound) == ""
    by_address = {"ae_title": "PACS", "networks": ["10.0.0.0/8"]}
    assert "address alone" in said(retention=retention, destinations=[pacs], peers=[by_address], **bound)
