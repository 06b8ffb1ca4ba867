"""Every way of not looking has a code that machines can read, beside the sentence for a person."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import inference
from config.settings import Settings
from ledger.records import ReportKind
from ledger.store import Store
from sr_writer.build import build_objects
from sr_writer.reasons import OTHER, REASONS
from tests.support.dx import make_dx
from tests.support.findings import analysed, keep, new_store, not_assessed, study
from tests.support.reports import dataset
from tests.unit.sr_writer.test_result_objects import items, values

INFERENCE = Path(str(inference.__file__)).parent
WHERE = (INFERENCE, INFERENCE.parent / "ledger", INFERENCE.parent / "node")  # who looks, and who gives up looking
OF_NO_RESULT = {"not_now"}  # the page asked for a name, and hears so
# Callee -> which argument is the short name.
REFUSES = {"CannotLook": 0, "failed": 3, "_not_assessed": 3, "ImageResult": 2}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return new_store(tmp_path_factory.mktemp("results"))


def codes_given() -> set[str]:
    paths = (path for folder in WHERE for path in folder.rglob("*.py"))
    return {code for path in paths for code in _codes(ast.parse(path.read_text())) if code}


def _codes(tree: ast.Module) -> Iterator[str]:
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            callee = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            place = REFUSES.get(callee)
            if callee == "ImageResult" and node.args and ast.unparse(node.args[0]) == "ResultStatus.NOT_APPLICABLE":
                continue  # nobody's image needs no reason
            given = node.args[place] if place is not None and len(node.args) > place else None
            named = [keyword.value for keyword in node.keywords if keyword.arg == "reason_code"]
            for value in [given, *named]:
                if isinstance(value, ast.Name) and value.id in constants:
                    yield str(constants[value.id])
                elif isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield value.value
        elif isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args]
            with_default = arguments[len(arguments) - len(node.args.defaults) :]
            for argument, default in zip(with_default, node.args.defaults, strict=True):
                if argument.arg == "reason_code" and isinstance(default, ast.Constant):
                    yield str(default.value)


def test_every_reason_that_looking_can_give_is_in_the_table() -> None:
    found = codes_given()
    assert len(found) > 15, "the walk no longer finds where reasons are given"
    assert {"age_unknown", "abstained", "internal_error", "output_not_finite", "package_refused", "parked"} <= found
    assert found <= set(REASONS) | OF_NO_RESULT, found - set(REASONS)


def test_codes_fit_their_elements_and_each_means_one_thing() -> None:
    meanings: dict[tuple[str, str], str] = {}
    for name, value in [*REASONS.values(), OTHER]:
        for concept in (name, value):
            assert len(concept.value) <= 16  # SH
            assert len(concept.meaning) <= 64  # LO
            key = (concept.value, concept.scheme_designator)
            assert meanings.setdefault(key, concept.meaning) == concept.meaning


@pytest.mark.parametrize(
    ("code", "name", "value"),
    [
        ("constant_pixels", "111101", "RID14"),
        ("for_processing", "111101", "111219"),
        ("age_unknown", "NOT_ASSESSED", "AGE_UNKNOWN"),
        ("what_a_later_node_says", "NOT_ASSESSED", "OTHER_REASON"),
    ],
)
def test_the_text_report_says_the_sentence_and_the_code(code: str, name: str, value: str, store: Store) -> None:
    found = study((keep(make_dx(), store), [not_assessed("This is why", code)]))
    (made,) = build_objects(found, store, Settings(), "2.25.7", "generic-pacs")
    ds = dataset(made)
    assert "Cannot assess: This is why" in values(ds, "121071")
    coded = [item for item in items(ds) if item.ConceptNameCodeSequence[0].CodeValue == name]
    assert [item.ConceptCodeSequence[0].CodeValue for item in coded] == [value]


def test_the_measurement_report_has_each_reason_once_among_its_evaluations(store: Store) -> None:
    sources = [make_dx() for _ in range(4)]
    for source in sources[1:]:
        source.StudyInstanceUID = sources[0].StudyInstanceUID
    refused = [[not_assessed(code="age_unknown")], [not_assessed(code="colour")], [not_assessed(code="age_unknown")]]
    found = study(*[(keep(ds, store), said) for ds, said in zip(sources, [[analysed()], *refused], strict=True)])
    assert found.kind is ReportKind.FINAL
    made = build_objects(found, store, Settings(), "2.25.7", "generic-pacs")
    ds = dataset(next(one for one in made if one.kind == "measurement_sr"))
    (evaluations,) = [item for item in items(ds) if item.ConceptNameCodeSequence[0].CodeValue == "C0034375"]
    said = [
        item.ConceptCodeSequence[0].CodeValue
        for item in evaluations.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeValue == "NOT_ASSESSED"
    ]
    assert sorted(said) == ["AGE_UNKNOWN", "COLOUR"]
