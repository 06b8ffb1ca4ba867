"""What slice models say of each series, for `analyse`: after the lines of the slices, one line for each label."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inference.analyser import Looked
from inference.slices import read_geometry
from inference.volume import volumes_of
from ledger.records import InstanceRef, InstanceResults, VolumeFinding
from node.looking.analysing import SCHEMA_VERSION
from sr_writer.volume_words import statement


class Series:
    """Collects slices as they are looked at; nothing of other images is kept."""

    def __init__(self) -> None:
        self._slices: list[InstanceResults] = []

    def add(self, path: Path, looked: Looked) -> None:
        """Keep what a slice model said of this file, if one did."""
        said = tuple(result for result in looked.results if result.model and result.model.volume_rule)
        if said and looked.study_instance_uid and looked.series_instance_uid and looked.sop_instance_uid:
            self._slices.append(InstanceResults(self._ref(path, looked), said))

    def volumes(self) -> tuple[VolumeFinding, ...]:
        """Of every series so far."""
        return volumes_of(self._slices, lambda ref: read_geometry(Path(ref.path)))

    def lines(self) -> list[tuple[dict[str, Any], str]]:
        """For each volume: an object of the schema, and a line for a person."""
        study = {item.instance.series_instance_uid: item.instance.study_instance_uid for item in self._slices}
        found = self.volumes()
        return [(_line(study[volume.series_instance_uid], volume), _words(volume)) for volume in found]

    def _ref(self, path: Path, looked: Looked) -> InstanceRef:
        return InstanceRef(
            instance_id=len(self._slices),
            sop_class_uid="",
            sop_instance_uid=looked.sop_instance_uid or "",
            series_instance_uid=looked.series_instance_uid or "",
            study_instance_uid=looked.study_instance_uid or "",
            transfer_syntax_uid="",
            modality=looked.modality or "",
            sha256="",
            path=str(path),
            received_at=datetime.now(UTC),
        )


def _line(study_uid: str, volume: VolumeFinding) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "study_instance_uid": study_uid,
        "series_instance_uid": volume.series_instance_uid,
        "model": volume.model.name,
        "model_version": volume.model.version,
        "volume": {
            "label": volume.label,
            "code": {"value": volume.code.value, "scheme": volume.code.scheme, "meaning": volume.code.meaning},
            "present": volume.present,
            "undetermined": volume.undetermined,
            "volume_ml": volume.volume_ml,
            "longest_run": volume.longest_run,
            "slices_marked": len(volume.slices),
            "slices_looked_at": volume.slices_looked_at,
            "slices_unjudged": volume.slices_unjudged,
            "probability": volume.probability,
            "probability_sd": volume.probability_sd,
            "remark": volume.remark,
        },
    }


def _words(volume: VolumeFinding) -> str:
    unjudged, total = volume.slices_unjudged, volume.slices_looked_at + volume.slices_unjudged
    left = f" {unjudged} of {total} slices could not be assessed." if unjudged and not volume.undetermined else ""
    return f"series {volume.series_instance_uid}\tvolume\t{statement(volume, [volume])}{left}"
