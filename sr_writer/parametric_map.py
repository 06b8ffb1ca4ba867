"""Class activation as floats in the geometry of its slices: Parametric Maps, for CT and MR that say where they lie.

Radiographs have no frame of reference and get none; nor do models that mark a mask, which say where by themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import structlog
from highdicom import VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRLittleEndian

from ledger.records import Finding, InstanceRef, ResultObject
from ledger.store import Store
from sr_writer import codes
from sr_writer.body_part import put_body_part
from sr_writer.dress import Report, dress, finished, own_equipment, own_names
from sr_writer.errors import SourceUnreadable
from sr_writer.follow import series_name
from sr_writer.identity import uid_from
from sr_writer.picture import FULL_COLOUR_LOGITS, evidence_over
from sr_writer.reading import analysed, by_image, reads
from sr_writer.segmentation import clean_slice, name_dimensions
from sr_writer.source import UNREADABLE, SliceHeader, read_header, read_slice
from sr_writer.words import spoken

KIND = "parametric_map"
MODALITIES = ("CT", "MR")
MAX_FRAMES = 64  # of float pixels: 1 MiB each at 512 x 512
log = structlog.get_logger()


@dataclass(frozen=True)
class _Frame:
    """One image and the finding whose activation covers it."""

    instance: InstanceRef
    finding: Finding


def parametric_maps(report: Report, store: Store) -> list[ResultObject]:
    """One for each series, model and label that is present or in doubt; none where places are not shown."""
    made: list[ResultObject] = []
    for (series, digest, label), frames in _groups(report).items() if report.shows_place else ():
        try:
            made.append(_map(report, f"{KIND} {series} {digest} {label}", frames, store))
        except SourceUnreadable as error:
            log.info("parametric_map_left_out", reason=str(error))
        except (*UNREADABLE, RuntimeError) as error:  # an alarm never waits for a map that cannot be made
            log.warning("parametric_map_left_out", reason=type(error).__name__)
    return made


def _groups(report: Report) -> dict[tuple[str, str, str], list[_Frame]]:
    """The frames of each map, the most probable first, no more than MAX_FRAMES."""
    groups: dict[tuple[str, str, str], list[_Frame]] = {}
    for read in analysed(by_image(reads(report.findings))):
        model = read.result.model
        several = read.instance.sop_instance_uid in report.frames  # a frame says elsewhere where it lies
        if read.instance.modality not in MODALITIES or several or model is None:
            continue
        for finding in spoken(read.result):
            if finding.activation is not None and (finding.present or finding.in_doubt):
                key = (read.instance.series_instance_uid, model.digest, finding.label)
                groups.setdefault(key, []).append(_Frame(read.instance, finding))
    return {
        key: sorted(frames, key=lambda f: (-f.finding.probability, f.instance.sop_instance_uid))[:MAX_FRAMES]
        for key, frames in groups.items()
    }


def _map(report: Report, name: str, frames: Sequence[_Frame], store: Store) -> ResultObject:
    """Raises SourceUnreadable when a slice does not say where it lies, or the slices differ in size or direction."""
    placed = [(frame, read_slice(store.path(frame.instance.path))) for frame in frames]
    first = placed[0][1]
    placed = sorted((item for item in placed if _alike(item[1], first)), key=lambda item: _along(item[1]))
    header = read_header(store.path(placed[0][0].instance.path), report.findings.study_instance_uid)
    label, site = placed[0][0].finding.label, placed[0][0].finding.site
    ds = ParametricMap(
        source_images=[clean_slice(frame.instance, where, header) for frame, where in placed],
        pixel_array=strengths([frame.finding for frame, _ in placed], (first.rows, first.columns)),
        **own_names(report, KIND, name),
        **own_equipment(report),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[_mapping()],
        voi_lut_transformations=[VOILUTTransformation(window_center=0.5, window_width=1.0)],
        content_label="AI_ACTIVATION",
        content_description="AI class activation, research use only",
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    dress(ds, report, series_name(report, f"{label} activation"))
    put_body_part(ds, header, [site])
    name_dimensions(ds, uid_from(*report.identity.root, name, "dimensions"))
    return finished(ds, KIND)


def strengths(findings: Sequence[Finding], size: tuple[int, int]) -> NDArray[np.float32]:
    """(frames, rows, columns) in 0..1: positive evidence as a share of the greatest in any of the frames, or of
    FULL_COLOUR_LOGITS where that is more. The heat map of the picture has the same scale for its one image."""
    over = [evidence_over(f.activation, size, size) for f in findings if f.activation is not None]
    full = max([FULL_COLOUR_LOGITS, *(float(values.max(initial=0.0)) for values in over)])
    return np.asarray(np.clip(np.stack(over) / full, 0.0, 1.0), np.float32)


def _mapping() -> RealWorldValueMapping:
    return RealWorldValueMapping(
        lut_label="ACTIVATION",
        lut_explanation="Class activation, share of full",
        unit=codes.NO_UNITS,
        value_range=(0.0, 1.0),
        slope=1.0,
        intercept=0.0,
        quantity_definition=codes.CLASS_ACTIVATION,
    )


def _alike(one: SliceHeader, other: SliceHeader) -> bool:
    same_place = (one.frame_of_reference_uid, one.rows, one.columns) == (
        other.frame_of_reference_uid,
        other.rows,
        other.columns,
    )
    return same_place and bool(np.allclose(one.orientation, other.orientation, atol=1e-3))


def _along(where: SliceHeader) -> float:
    """The place of a slice along the normal of its series, in mm."""
    normal = np.cross(where.orientation[:3], where.orientation[3:])
    return float(normal @ np.asarray(where.position))
