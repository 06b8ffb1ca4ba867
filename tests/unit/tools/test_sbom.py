"""The bill of materials names what is installed, with the hashes that the lock allows, and the models that decide."""

from pathlib import Path
from typing import Any

import pytest

from tools.sbom import faults, pins, with_hashes, with_known_licences, with_models

ROOT = Path(__file__).parents[3]
LOCK = (
    "numpy==2.1.0 \\\n    --hash=sha256:"
    + "a" * 64
    + " \\\n    --hash=sha256:"
    + "b" * 64
    + "\nSQL_Alchemy==2.0.1 \\\n"
)


def _document(*components: dict[str, Any]) -> dict[str, Any]:
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": list(components)}


def _library(name: str, version: str) -> dict[str, Any]:
    return {"type": "library", "name": name, "version": version, "bom-ref": name}


def test_every_pin_is_read_with_its_hashes() -> None:
    assert pins(LOCK) == {"numpy": ("2.1.0", ["a" * 64, "b" * 64]), "sql-alchemy": ("2.0.1", [])}
    assert all(hashes for _, hashes in pins((ROOT / "requirements/cpu.txt").read_text()).values())


def test_a_library_carries_the_hashes_of_its_files() -> None:
    document = with_hashes(_document(_library("NumPy", "2.1.0")), pins(LOCK))
    (distribution,) = document["components"][0]["externalReferences"]
    assert [one["content"] for one in distribution["hashes"]] == ["a" * 64, "b" * 64]
    assert faults(document) == ""


@pytest.mark.parametrize("library", [("numpy", "2.1.1"), ("left-pad", "1.0")])
def test_what_is_installed_and_not_locked_is_an_error(library: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="the lock does not name it"):
        with_hashes(_document(_library(*library)), pins(LOCK))


def test_each_shipped_model_is_a_component_by_its_hash() -> None:
    document = with_models(_document(), ROOT / "models")
    shipped = {path.parent.parent.name for path in ROOT.glob("models/*/*/manifest.json")}
    assert {component["name"] for component in document["components"]} == shipped
    assert all(len(component["hashes"][0]["content"]) == 64 for component in document["components"])
    assert faults(document) == ""


def test_a_licence_is_the_id_that_scanners_compare_where_there_is_one() -> None:
    said = "License :: OSI Approved :: "
    library = {**_library("x", "1"), "licenses": [{"license": {"name": said + "Apache Software License"}}]}
    other = {**_library("y", "1"), "licenses": [{"license": {"name": said + "BSD License"}}]}  # which of them?
    document = with_known_licences(with_models(_document(library, other), ROOT / "models"))
    found = [component["licenses"][0]["license"] for component in document["components"]]
    assert found[:2] == [{"id": "Apache-2.0"}, {"name": said + "BSD License"}]
    assert {"id": "CC-BY-4.0"} in found
    assert faults(document) == ""


def test_a_document_that_is_none_is_found() -> None:
    assert faults(_document({"type": "wish", "name": "x"}))
