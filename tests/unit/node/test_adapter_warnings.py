from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from config import Settings
from node.commands.adapter_warnings import adapter_warnings

HL7 = {"kind": "hl7", "name": "ris", "host": "ris", "port": 2575}
UPS = {"kind": "ups", "name": "list", "url": "https://list.example/rs"}
HOOK = {"kind": "webhook", "name": "hook", "url": "https://hook.example/in", "secret_file": "/nowhere/secret"}


def settings(*adapters: dict[str, Any]) -> Settings:
    return Settings.model_validate({"adapters": adapters})


def test_nothing_is_told_by_default() -> None:
    assert Settings().adapters == ()


def test_a_name_that_crosses_the_network_in_the_clear_is_warned_of() -> None:
    assert list(adapter_warnings(settings(HL7 | {"tls": True}, UPS))) == []
    [hl7, ups] = adapter_warnings(settings(HL7, UPS | {"url": "http://list.example/rs"}))
    assert hl7.startswith("adapters: ris: tls is off")
    assert ups.startswith("adapters: list: http, so the patient's name")


def test_a_secret_that_is_missing_short_or_open_to_all_is_warned_of(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    [missing] = adapter_warnings(settings(HOOK))
    assert "cannot be read" in missing
    secret.write_bytes(b"short")
    secret.chmod(0o644)
    short, readable = adapter_warnings(settings(HOOK | {"secret_file": str(secret)}))
    assert "fewer than 16 bytes" in short
    assert "by everybody" in readable
    secret.write_bytes(b"0123456789abcdef")
    secret.chmod(0o600)
    assert list(adapter_warnings(settings(HOOK | {"secret_file": str(secret)}))) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "fax", "name": "fax"},
        HOOK | {"url": "ftp://hook.example"},
        HOOK | {"url": "https://user:password@hook.example/"},
        {key: value for key, value in HOOK.items() if key != "secret_file"},
        HL7 | {"on": "sometimes"},
        HL7 | {"name": ""},
        HL7 | {"sending_facility": "a|b"},
    ],
)
def test_an_adapter_that_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(wrong)


def test_names_of_adapters_and_destinations_differ() -> None:
    with pytest.raises(ValidationError, match="same name"):
        settings(HL7, UPS | {"name": "ris"})
    pacs = {"name": "ris", "ae_title": "PACS", "host": "pacs", "port": 104}
    with pytest.raises(ValidationError, match="name of a destination"):
        Settings.model_validate({"adapters": [HL7], "destinations": [pacs]})
