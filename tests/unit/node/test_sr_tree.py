"""The printed tree shows every content item with its value and names no person."""

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from node.telling.sr_tree import tree_lines


def item(kind: str, name: str, **elements: object) -> Dataset:
    made = Dataset()
    made.ValueType, made.RelationshipType = kind, "CONTAINS"
    concept = Dataset()
    concept.CodeValue, concept.CodingSchemeDesignator, concept.CodeMeaning = "1", "99TEST", name
    made.ConceptNameCodeSequence = [concept]
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def test_each_kind_of_item_is_one_line_below_its_parent() -> None:
    unit, measured, code = Dataset(), Dataset(), Dataset()
    unit.CodeValue = "%"
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = "93", [unit]
    code.CodeMeaning = codes.SCT.Lung.meaning
    root = item("CONTAINER", "Report")
    del root.RelationshipType
    root.ContentSequence = [
        item("NUM", "Probability", MeasuredValueSequence=[measured]),
        item("NUM", "Unmeasured", MeasuredValueSequence=[]),
        item("CODE", "Site", ConceptCodeSequence=[code]),
        item("TEXT", "Comment", TextValue="in words"),
        item("PNAME", "Subject", PersonName="SENTINEL^NAME"),
    ]
    assert list(tree_lines(root)) == [
        "Report",
        "  contains: Probability = 93 %",
        "  contains: Unmeasured = no value",
        "  contains: Site = Lung",
        "  contains: Comment = in words",
        "  contains: Subject = (a person's name)",
    ]
