"""PixelMed's validator, which the Gazelle tests of IHE AI Results use, finds no error in the trees of these kinds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from config.settings import ReportSettings, Settings
from ledger.records import ReportKind, ResultObject, SentReference, TriagePriority
from ledger.store import Store
from sr_writer.build import build_objects
from tests.support.dx import make_dx
from tests.support.findings import flagged_study, keep, not_assessed, study
from tests.support.mr import head, make_mr, measured_study, squares
from tests.support.pixelmed import errors, validated

BOX = Settings(report=ReportSettings(localization="box"))
BEFORE = tuple(
    SentReference(kind, "1.2.840.10008.5.1.4.1.1.88.33", "2.25.11", "2.25.12") for kind in ("measurement_sr", "text_sr")
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("store"), fsync=lambda descriptor: None)
    store.prepare()
    return store


def key_objects(store: Store) -> list[ResultObject]:
    made = build_objects(flagged_study(store), store, Settings(), "2.25.7", "generic-pacs")
    return [one for one in made if one.kind == "key_objects"]


def withdrawn(store: Store) -> list[ResultObject]:
    findings = replace(
        flagged_study(store),
        kind=ReportKind.WITHDRAWN,
        priority=TriagePriority.NOT_ASSESSED,
        predecessors=BEFORE,
        cause="The model was recalled.",
    )
    return build_objects(findings, store, Settings(), "2.25.7", "generic-pacs")


def not_judged(store: Store) -> list[ResultObject]:
    first, second = make_dx(), make_dx()
    second.StudyInstanceUID = first.StudyInstanceUID
    reasons = [[not_assessed(code="constant_pixels")], [not_assessed(code="age_unknown")]]
    found = study((keep(first, store), reasons[0]), (keep(second, store), reasons[1]))
    return build_objects(found, store, Settings(), "2.25.7", "generic-pacs")


def planar(store: Store) -> list[ResultObject]:
    findings = measured_study(store, make_mr([head(False, 64)] * 4), squares(0, 20, 22, 0))
    made = build_objects(findings, store, BOX, "2.25.7", "ohif")
    return [one for one in made if one.kind == "measurement_sr"]


KINDS: dict[str, Callable[[Store], list[ResultObject]]] = {
    "key objects": key_objects,
    "withdrawn reports": withdrawn,
    "reasons in codes": not_judged,
    "volumes in a plane": planar,
}


@pytest.mark.parametrize("name", KINDS)
def test_no_error_in_any_template(name: str, store: Store, tmp_path: Path) -> None:
    preferred = [one for one in KINDS[name](store) if one.preference == 0]
    assert preferred
    files = [tmp_path / f"{number}-{one.kind}.dcm" for number, one in enumerate(preferred)]
    for file, one in zip(files, preferred, strict=True):
        file.write_bytes(one.content)
    said = validated(files)
    assert list(said) == files
    assert {file.name: errors(words) for file, words in said.items()} == {file.name: [] for file in files}
