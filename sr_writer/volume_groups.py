"""Volumes in the measurement report, in one of two layouts.

As a volume (TID 1411): one group for each segment, tied to it. As a plane (TID 1410), for viewers that draw nothing of
the first: the rectangle around the mark on the slice where it is largest.
"""

from collections.abc import Sequence

from highdicom.sr import (
    AlgorithmIdentification,
    FindingSite,
    Measurement,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    ReferencedSegment,
    RelationshipTypeValues,
    SourceSeriesForSegmentation,
    TextContentItem,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from sr_writer import codes
from sr_writer.dress import Report, Segment
from sr_writer.regions import finish_region, rectangle, region
from sr_writer.segmentation import volume_tracking_id, volume_tracking_uid
from sr_writer.volume_words import short
from sr_writer.words import in_percent

VolumeGroup = VolumetricROIMeasurementsAndQualitativeEvaluations | PlanarROIMeasurementsAndQualitativeEvaluations


def volume_groups(report: Report, planar: bool = False) -> list[VolumeGroup]:
    """One for each segment of the report, in their order. planar: on one slice each, with coordinates."""
    return [_planar(segment, report) if planar else _volumetric(segment, report) for segment in report.segments]


def _volumetric(segment: Segment, report: Report) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    volume = segment.volume
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(segment, report),
        referenced_segment=ReferencedSegment(
            sop_class_uid=SegmentationStorage,
            sop_instance_uid=segment.sop_instance_uid,
            segment_number=segment.number,
            source_series=SourceSeriesForSegmentation(volume.series_instance_uid),
        ),
        finding_type=codes.concept(volume.code),
        finding_sites=_sites(segment),
        algorithm_id=_algorithm(segment),
        measurements=_numbers(segment),
    )


def _planar(segment: Segment, report: Report) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(segment, report),
        referenced_region=region(rectangle(segment.box), segment.widest),
        finding_type=codes.concept(segment.volume.code),
        finding_sites=_sites(segment),
        algorithm_id=_algorithm(segment),
        measurements=_numbers(segment),
    )


def _tracking(segment: Segment, report: Report) -> TrackingIdentifier:
    uid = volume_tracking_uid(report, segment.volume)
    return TrackingIdentifier(uid=uid, identifier=volume_tracking_id(segment.volume))


def _sites(segment: Segment) -> list[FindingSite] | None:
    return [FindingSite(codes.concept(segment.volume.site))] if segment.volume.site else None


def _numbers(segment: Segment) -> list[Measurement]:
    """The volume first, of the whole series, where it is known."""
    volume = segment.volume
    numbers = [
        Measurement(name=codes.PROBABILITY, value=in_percent(volume.probability), unit=codes.PERCENT),
        Measurement(name=codes.PROBABILITY_SD, value=round(volume.probability_sd * 100.0, 2), unit=codes.PERCENT),
    ]
    if volume.volume_ml is not None:
        numbers.insert(0, Measurement(codes.VOLUME, round(volume.volume_ml, 3), codes.MILLILITRE))
    return numbers


def _algorithm(segment: Segment) -> AlgorithmIdentification:
    model = segment.volume.model
    rule = model.volume_rule
    return AlgorithmIdentification(
        name=model.name,
        version=model.version,
        family=codes.ARTIFICIAL_INTELLIGENCE,
        parameters=[
            f"package-sha256={model.digest}",
            f"mc_dropout_passes={model.passes}",
            *([f"min_contiguous_slices={rule.min_slices}", f"min_volume_ml={rule.min_volume_ml:g}"] if rule else []),
            "a slice counts when it is marked and its own finding is present",
        ],
    )


def finish_volume_groups(groups: Sequence[Dataset], report: Report) -> None:
    """Per group: its label for viewers and, in a plane, the coordinates under its first number."""
    for group, segment in zip(groups, report.segments, strict=True):
        if any(item.ValueType == "SCOORD" for item in group.ContentSequence):
            finish_region(group, segment.widest, report)
        text = f"AI (research): {short(segment.volume)}"
        group.ContentSequence.append(TextContentItem(codes.COMMENT, text, RelationshipTypeValues.CONTAINS))
