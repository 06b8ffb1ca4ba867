"""Masks as an object: one BINARY Segmentation for each series and slice model, in the geometry of its source.

A frame stands for each slice that counts, a segment for each label. Only headers and masks are read, never the pixels
of the source.
"""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import structlog
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from ledger.records import InstanceRef, ResultObject, VolumeFinding
from ledger.store import Store
from sr_writer import codes
from sr_writer.body_part import put_body_part
from sr_writer.dress import Report, Segment, dress, finished, own_equipment, own_names, stand_in
from sr_writer.errors import SourceUnreadable
from sr_writer.follow import series_name
from sr_writer.identity import tracking_uid, uid_from
from sr_writer.source import SliceHeader, SourceHeader, read_header, read_slice
from sr_writer.words import name_of

KIND = "segmentation"
# CIELab, one for each segment in turn; a viewer that is told none warns its reader. Magenta, cyan, yellow, orange.
_COLOURS = ((60.0, 94.0, -60.0), (91.0, -50.0, -15.0), (97.0, -21.0, 94.0), (75.0, 24.0, 79.0))
log = structlog.get_logger()


def segmentations(report: Report, store: Store) -> tuple[list[ResultObject], tuple[Segment, ...]]:
    """The objects and what they show. Slices that do not say where they lie get none: the text still tells of them."""
    made: list[ResultObject] = []
    segments: list[Segment] = []
    for volumes in _groups(report.findings.volumes):
        try:
            result, shown = _segmentation(report, volumes, store)
        except SourceUnreadable as error:
            log.warning("segmentation_left_out", reason=str(error))
            continue
        made.append(result)
        segments += shown
    return made, tuple(segments)


def _groups(volumes: Sequence[VolumeFinding]) -> list[list[VolumeFinding]]:
    """Volumes with a mark, by series and model."""
    groups: dict[tuple[str, str], list[VolumeFinding]] = {}
    for volume in volumes:
        if volume.slices and volume.ordered:
            groups.setdefault((volume.series_instance_uid, volume.model.digest), []).append(volume)
    return list(groups.values())


def _segmentation(
    report: Report, volumes: Sequence[VolumeFinding], store: Store
) -> tuple[ResultObject, tuple[Segment, ...]]:
    """Raises SourceUnreadable when a header or a mask that it needs cannot be read."""
    instances = _in_order(volumes)
    slices = [read_slice(store.path(instance.path)) for instance in instances]
    header = read_header(store.path(instances[0].path), report.findings.study_instance_uid)
    series, model = volumes[0].series_instance_uid, volumes[0].model
    name = f"{KIND} {series} {model.digest}"
    masks = _masks(volumes, instances, slices[0], store)
    ds = Segmentation(
        source_images=[
            clean_slice(instance, where, header, volumes[0].distance_mm)
            for instance, where in zip(instances, slices, strict=True)
        ],
        pixel_array=masks,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(report, volume, i) for i, volume in enumerate(volumes, start=1)],
        **own_names(report, KIND, name),
        **own_equipment(report),
        content_label="AI_SEGMENTATION",
        content_description="AI segmentation, research use only",
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    dress(ds, report, series_name(report, f"{volumes[0].label} segmentation"))
    put_body_part(ds, header, [volume.site for volume in volumes])
    name_dimensions(ds, uid_from(*report.identity.root, name, "dimensions"))
    sop, own_series = str(ds.SOPInstanceUID), str(ds.SeriesInstanceUID)
    shown = [
        Segment(volume, sop, own_series, i + 1, *_widest(masks[..., i], instances)) for i, volume in enumerate(volumes)
    ]
    return finished(ds, KIND), tuple(shown)


def _widest(
    masks: NDArray[np.uint8], instances: Sequence[InstanceRef]
) -> tuple[InstanceRef, tuple[int, int, int, int]]:
    """masks: (slices, rows, columns), marked somewhere. Returns the slice that is marked most, and the box around it:
    (top, left, bottom, right) in pixels, bottom and right exclusive."""
    most = int(np.argmax(masks.sum(axis=(1, 2), dtype=np.int64)))
    rows, columns = (np.flatnonzero(masks[most].any(axis=axis)) for axis in (1, 0))
    return instances[most], (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def _in_order(volumes: Sequence[VolumeFinding]) -> list[InstanceRef]:
    """Every slice that any label marks, once; the order of the labels' own lists."""
    return list({ref.sop_instance_uid: ref for volume in volumes for ref, _ in volume.slices}.values())


def clean_slice(
    instance: InstanceRef, where: SliceHeader, header: SourceHeader, distance_mm: float | None = None
) -> Dataset:
    """What highdicom copies from a source image, clean. Raises SourceUnreadable without a thickness."""
    ds = stand_in(instance, where.rows, where.columns)
    ds.SOPClassUID = instance.sop_class_uid
    ds.Modality = instance.modality
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.FrameOfReferenceUID = where.frame_of_reference_uid
    ds.PositionReferenceIndicator = ""
    ds.ImageOrientationPatient = _decimals(where.orientation)
    ds.ImagePositionPatient = _decimals(where.position)
    ds.PixelSpacing = _decimals(where.pixel_spacing)
    thickness = where.thickness or distance_mm
    if thickness is None:
        raise SourceUnreadable("a stored slice does not say how thick it is")
    ds.SliceThickness = _decimals([thickness])[0]
    if distance_mm is not None:
        ds.SpacingBetweenSlices = _decimals([distance_mm])[0]
    for keyword, value in header.lossy.items():
        setattr(ds, keyword, value)
    return ds


def _decimals(values: Sequence[float]) -> list[DSfloat]:
    """VR DS holds 16 characters."""
    return [DSfloat(value, auto_format=True) for value in values]


def _masks(
    volumes: Sequence[VolumeFinding], instances: Sequence[InstanceRef], where: SliceHeader, store: Store
) -> NDArray[np.uint8]:
    """(slices, rows, columns, segments), 0 or 1."""
    index = {instance.sop_instance_uid: i for i, instance in enumerate(instances)}
    array = np.zeros((len(instances), where.rows, where.columns, len(volumes)), np.uint8)
    for segment, volume in enumerate(volumes):
        for instance, mask in volume.slices:
            marked = _mask(mask.path, store)
            if marked.shape != (where.rows, where.columns):
                raise SourceUnreadable("a mask has another size than its slice")
            array[index[instance.sop_instance_uid], :, :, segment] = marked
    return array


def _mask(path: str, store: Store) -> NDArray[np.bool_]:
    """(rows, columns)."""
    try:
        with Image.open(BytesIO(store.read(path)), formats=("PNG",)) as picture:
            return np.asarray(picture.convert("L")) > 127
    except (OSError, ValueError, UnidentifiedImageError):
        raise SourceUnreadable("a stored mask cannot be read") from None


def _description(report: Report, volume: VolumeFinding, number: int) -> SegmentDescription:
    model = volume.model
    return SegmentDescription(
        segment_number=number,
        segment_label=name_of(volume),
        segmented_property_category=codes.ABNORMAL_STRUCTURE,
        segmented_property_type=codes.segmented(volume.code),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=model.name,
            family=codes.ARTIFICIAL_INTELLIGENCE,
            version=model.version,
            parameters={"package-sha256": model.digest},
        ),
        tracking_uid=volume_tracking_uid(report, volume),
        tracking_id=volume_tracking_id(volume),
        display_color=CIELabColor(*_COLOURS[(number - 1) % len(_COLOURS)]),
        anatomic_regions=[codes.concept(volume.site)] if volume.site else None,
    )


def volume_tracking_uid(report: Report, volume: VolumeFinding) -> str:
    """The same in the segmentation and in the report, and over revisions of both."""
    return tracking_uid(report.installation_uid, volume.series_instance_uid, volume.model.name, volume.label)


def volume_tracking_id(volume: VolumeFinding) -> str:
    return f"AI {name_of(volume)} volume"


def name_dimensions(ds: Dataset, uid: str) -> None:
    """highdicom draws the UID of the dimensions by chance; ours is as lasting as the object's own."""
    for item in (*ds.DimensionOrganizationSequence, *ds.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid
