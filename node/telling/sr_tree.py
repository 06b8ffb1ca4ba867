"""Print a structured report's content tree (PS3.3 C.17.3), one line per content item."""

from collections.abc import Iterator

from pydicom.dataset import Dataset


def tree_lines(item: Dataset, depth: int = 0) -> Iterator[str]:
    """The item and everything below it, indented."""
    relationship = f"{item.RelationshipType.lower()}: " if "RelationshipType" in item else ""
    yield "  " * depth + f"{relationship}{_name(item)}{_value(item)}"
    for child in item.get("ContentSequence") or []:
        yield from tree_lines(child, depth + 1)


def _name(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeMeaning) if names else str(item.get("ValueType", "")).lower()


def _value(item: Dataset) -> str:
    kind = item.get("ValueType", "")
    if kind == "CODE":
        return f" = {item.ConceptCodeSequence[0].CodeMeaning}"
    if kind == "NUM":
        return f" = {_number(item)}"
    if kind in ("IMAGE", "COMPOSITE"):
        return f" = instance {item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID}"
    for keyword in ("TextValue", "UID", "DateTime", "Date", "Time"):
        if keyword in item:
            return f" = {item[keyword].value}"
    if kind == "PNAME":
        return " = (a person's name)"
    return ""


def _number(item: Dataset) -> str:
    if not item.get("MeasuredValueSequence"):
        return "no value"
    measured = item.MeasuredValueSequence[0]
    unit = measured.MeasurementUnitsCodeSequence[0].CodeValue
    return f"{measured.NumericValue}" + (f" {unit}" if unit not in ("1", "{ratio}") else "")
