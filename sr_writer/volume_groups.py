"""Measurement groups of volumes: TID 1411, each tied to its segment of a segmentation."""

from collections.abc import Sequence

from highdicom.sr import (
    AlgorithmIdentification,
    FindingSite,
    Measurement,
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
from sr_writer.segmentation import volume_tracking_id, volume_tracking_uid
from sr_writer.volume_words import short
from sr_writer.words import in_percent


def volume_groups(report: Report) -> list[VolumetricROIMeasurementsAndQualitativeEvaluations]:
    """One for each segment of the report, in their order."""
    return [_group(segment, report) for segment in report.segments]


def _group(segment: Segment, report: Report) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    volume = segment.volume
    measurements = [
        Measurement(name=codes.PROBABILITY, value=in_percent(volume.probability), unit=codes.PERCENT),
        Measurement(name=codes.PROBABILITY_SD, value=round(volume.probability_sd * 100.0, 2), unit=codes.PERCENT),
    ]
    if volume.volume_ml is not None:
        millilitres = Measurement(name=codes.VOLUME, value=round(volume.volume_ml, 3), unit=codes.MILLILITRE)
        measurements.insert(0, millilitres)
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=volume_tracking_uid(report, volume), identifier=volume_tracking_id(volume)
        ),
        referenced_segment=ReferencedSegment(
            sop_class_uid=SegmentationStorage,
            sop_instance_uid=segment.sop_instance_uid,
            segment_number=segment.number,
            source_series=SourceSeriesForSegmentation(volume.series_instance_uid),
        ),
        finding_type=codes.concept(volume.code),
        finding_sites=[FindingSite(codes.concept(volume.site))] if volume.site else None,
        algorithm_id=_algorithm(segment),
        measurements=measurements,
    )


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
    """Per group: its label for viewers."""
    for group, segment in zip(groups, report.segments, strict=True):
        text = f"AI (research): {short(segment.volume)}"
        group.ContentSequence.append(TextContentItem(codes.COMMENT, text, RelationshipTypeValues.CONTAINS))
