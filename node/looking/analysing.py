"""The node's own code path without a network, for `analyse`: files in, lines of the issue's schema out."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from config import Settings
from inference.analyser import Analyser, Looked, Source
from ledger.records import ImageResult, ResultStatus
from node.telling.result_object import as_object

SCHEMA_VERSION = 1
PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")  # PNG, JPEG


def source_of(path: Path, as_kind: str | None, age_years: float | None) -> Source:
    """What the analyser is given for `path`: --as and --age concern pictures; DICOM speaks for itself."""
    if as_kind is not None and is_picture(path):
        return Source(path=path, as_kind=as_kind, age_years=age_years)
    return Source(path=path)


def is_picture(path: Path) -> bool:
    """Whether the file starts as PNG or JPEG files do."""
    try:
        with path.open("rb") as file:
            return file.read(8).startswith(PICTURES)
    except OSError:
        return False


def look(analyser: Analyser, sources: Sequence[Source], settings: Settings) -> Iterator[tuple[Source, Looked]]:
    """Analyse in batches as the node does; yields in the given order."""
    step = settings.look.batch_max
    for start in range(0, len(sources), step):
        batch = sources[start : start + step]
        yield from zip(batch, analyser.analyse(batch), strict=True)


def lines(path: Path, looked: Looked) -> list[dict[str, Any]]:
    """One object per model that was asked, at least one."""
    return [_line(path, looked, result) for result in looked.results] or [_line(path, looked, _NOBODY)]


_NOBODY = ImageResult(ResultStatus.NOT_APPLICABLE, "No model package is meant for it.", "no_model", None)


def _line(path: Path, looked: Looked, result: ImageResult) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "path": str(path),
        "study_instance_uid": looked.study_instance_uid,
        "sop_instance_uid": looked.sop_instance_uid,
        "modality": looked.modality,
        **as_object(result),
    }
