"""What is marked, as a layer over the source image itself: one Grayscale Softcopy Presentation State (PS3.3 A.33.1).

A presentation state replaces the whole grey pipeline of the image it refers to, so the source's own modality and VOI
transformations are carried over; the marks lie on top, in pixels of the source.
"""

from collections.abc import Sequence

from pydicom.dataset import Dataset
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage

from ledger.records import Finding, Region, ResultObject
from ledger.store import Store
from sr_writer.body_part import put_body_part
from sr_writer.dress import Report, dress, finished, image_reference, own_names, stand_in
from sr_writer.errors import SourceUnreadable
from sr_writer.follow import series_name
from sr_writer.grey_pipeline import GreyPipeline, read_pipeline
from sr_writer.reading import Read, analysed, by_image, ranked, reads
from sr_writer.regions import Box, rectangle
from sr_writer.sr_document import sr_document
from sr_writer.words import beside_box, spoken

KIND = "presentation_state"
LAYER = "AI_RESEARCH"
_COLOUR = (45000, 33000, 50000)  # CIELab as DICOM scales it: a yellow that shows on grey
_TEXT_HEIGHT, _LETTER = 0.03, 0.6  # of the image's height; of the letter's height


def presentation_state(report: Report, store: Store) -> ResultObject | None:
    """Boxes of the worst image with their labels.

    None where there are none to show, or the image is in colour or says too little of itself: there is no grey
    pipeline to carry over.
    """
    found = analysed(by_image(reads(report.findings)))
    if not found or not (marks := _marks(found, report)):
        return None
    worst = found[0]
    try:
        pipeline = read_pipeline(store.path(worst.instance.path))
    except SourceUnreadable:
        return None
    ds = sr_document(
        GrayscaleSoftcopyPresentationStateStorage,
        evidence=[stand_in(worst.instance)],
        content=Dataset(),
        **own_names(report, KIND),
    )
    del ds.PerformedProcedureCodeSequence, ds.ReferencedPerformedProcedureStepSequence  # of a report
    dress(ds, report, series_name(report, "marks"))
    put_body_part(ds, report.header, [finding.site for finding in worst.result.findings])
    _identification(ds, report)
    _relationship(ds, worst, report)
    _area(ds, worst, report, pipeline)
    pipeline.put_into(ds)
    ds.GraphicAnnotationSequence = [_annotation(worst, report, pipeline, marks)]
    ds.GraphicLayerSequence = [_layer()]
    return finished(ds, KIND)


def _identification(ds: Dataset, report: Report) -> None:
    ds.Modality = "PR"
    ds.ContentLabel = LAYER
    ds.ContentDescription = "AI marks, research use only"
    ds.ContentCreatorName = ""
    ds.PresentationCreationDate, ds.PresentationCreationTime = ds.ContentDate, ds.ContentTime
    del ds.ContentDate, ds.ContentTime  # a presentation state has the two above in their place


def _relationship(ds: Dataset, worst: Read, report: Report) -> None:
    series = Dataset()
    series.SeriesInstanceUID = worst.instance.series_instance_uid
    series.ReferencedImageSequence = [image_reference(report, worst.instance)]
    ds.ReferencedSeriesSequence = [series]


def _area(ds: Dataset, worst: Read, report: Report, pipeline: GreyPipeline) -> None:
    """The whole image, as large as it fits (PS3.3 C.10.4)."""
    item = Dataset()
    item.ReferencedImageSequence = [image_reference(report, worst.instance)]
    item.DisplayedAreaTopLeftHandCorner = [1, 1]
    item.DisplayedAreaBottomRightHandCorner = [pipeline.columns, pipeline.rows]
    item.PresentationSizeMode = "SCALE TO FIT"
    if pipeline.spacing:
        item.PresentationPixelSpacing = list(pipeline.spacing)
    else:
        item.PresentationPixelAspectRatio = [1, 1]
    ds.DisplayedAreaSelectionSequence = [item]


def _marks(found: Sequence[Read], report: Report) -> list[tuple[Box, str]]:
    """Boxes of the worst image with their labels. None where no place may be shown: a frame around the whole image
    marks nothing."""
    if not report.shows_regions:
        return []
    same = [read for read in found if read.instance == found[0].instance]
    order = sorted((f for read in same for f in spoken(read.result)), key=ranked)
    named = [finding for finding in order if finding.present or finding.in_doubt] or order[:1]
    return [(region.box, _label(f, region)) for f in named for region in f.regions]


def _label(finding: Finding, region: Region) -> str:
    return f"AI (research): {beside_box(finding, region)}"


def _annotation(worst: Read, report: Report, pipeline: GreyPipeline, marks: Sequence[tuple[Box, str]]) -> Dataset:
    item = Dataset()
    item.ReferencedImageSequence = [image_reference(report, worst.instance)]
    item.GraphicLayer = LAYER
    item.TextObjectSequence = [_text(box, text, pipeline) for box, text in marks]
    item.GraphicObjectSequence = [_frame(box) for box, _ in marks]
    return item


def _frame(box: Box) -> Dataset:
    """A closed polyline of (column, row), the same corners as in the measurement report."""
    item = Dataset()
    item.GraphicAnnotationUnits = "PIXEL"
    item.GraphicDimensions = 2
    item.NumberOfGraphicPoints = 5
    item.GraphicData = rectangle(box).ravel().tolist()
    item.GraphicType = "POLYLINE"
    item.GraphicFilled = "N"
    return item


def _text(box: Box, text: str, pipeline: GreyPipeline) -> Dataset:
    """Above the box, or inside of it where there is no room above."""
    top, left, _, _ = box
    height = max(_TEXT_HEIGHT * pipeline.rows, 1.0)
    top = top - height if top >= height else top
    right = min(left + len(text) * height * _LETTER, float(pipeline.columns))
    item = Dataset()
    item.BoundingBoxAnnotationUnits = "PIXEL"
    item.UnformattedTextValue = text
    item.BoundingBoxTopLeftHandCorner = [left, top]
    item.BoundingBoxBottomRightHandCorner = [right, top + height]
    item.BoundingBoxTextHorizontalJustification = "LEFT"
    return item


def _layer() -> Dataset:
    item = Dataset()
    item.GraphicLayer = LAYER
    item.GraphicLayerOrder = 1
    item.GraphicLayerRecommendedDisplayCIELabValue = list(_COLOUR)
    item.GraphicLayerDescription = "AI marks, research use only"
    return item
