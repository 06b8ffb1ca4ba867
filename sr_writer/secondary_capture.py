"""The picture as an object: one RGB Secondary Capture of the worst image (result_objects 7.3)."""

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO

from highdicom.sc import SCImage
from PIL import Image, UnidentifiedImageError
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from ledger.records import Finding, ResultObject
from ledger.store import Store
from sr_writer import codes
from sr_writer.body_part import put_body_part
from sr_writer.dress import Report, dress, finished, image_reference, own_names
from sr_writer.follow import series_name
from sr_writer.map_box import box_from_map
from sr_writer.picture import Picture, draw
from sr_writer.reading import Read, analysed, ranked, reads
from sr_writer.words import spoken

KIND = "secondary_capture"
_MAX_NAMED = 4
_PICTURE = "AI heat map or boxes, and text, on a copy of the source image; research use only"
_BANNER = "AI text about the source image; research use only"


def secondary_capture(report: Report, store: Store, banner_only: bool = False) -> ResultObject:
    """Draw the worst image and wrap it. BurnedInAnnotation is YES: words are in the pixels, an identity never.

    banner_only: the words alone, without the image and without any place in it.
    """
    found = reads(report.findings)
    worst = (analysed(found) or found)[0]
    picture = _picture(report, worst, found)
    if banner_only:
        picture = replace(picture, banner_only=True, mapped=None, box=None)
    pixels = draw(None if banner_only else _display(worst, store), picture)
    ds = SCImage(
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        study_instance_uid=report.findings.study_instance_uid,
        **own_names(report, KIND),
        patient_orientation=("L", "F"),  # highdicom insists; the source's own is put in below
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    dress(ds, report, series_name(report, "picture"))
    _image_headers(ds, report, worst, banner_only)
    return finished(ds, KIND)


def _display(worst: Read, store: Store) -> Image.Image | None:
    if not worst.result.display_path:
        return None
    try:
        image = Image.open(BytesIO(store.read(worst.result.display_path)))
        image.load()
    except (OSError, ValueError, UnidentifiedImageError):
        return None  # the report still leaves, with a placard
    return image


def _picture(report: Report, worst: Read, found: Sequence[Read]) -> Picture:
    image = worst.instance.sop_instance_uid
    here = [f for read in analysed(found) if read.instance.sop_instance_uid == image for f in spoken(read.result)]
    order = sorted(here, key=ranked)
    named = [f for f in order if f.present or f.in_doubt][:_MAX_NAMED] or order[:1]
    size = (
        worst.result.source_rows or report.header.rows,
        worst.result.source_columns or report.header.columns,
    )
    mapped = _mapped(named) if report.shows_place else None
    return Picture(
        priority=report.findings.priority,
        findings=tuple(named),
        mapped=mapped,
        source_size=size,
        footer=_footer(report, found),
        box=box_from_map(mapped, size) if mapped and report.shows_regions else None,
    )


def _mapped(named: Sequence[Finding]) -> Finding | None:
    """The first that has boxes or a map; findings are in the order of urgency."""
    return next((finding for finding in named if finding.regions or finding.activation is not None), None)


def _footer(report: Report, found: Sequence[Read]) -> tuple[str, ...]:
    models = dict.fromkeys(f"{r.result.model.name} {r.result.model.version}" for r in analysed(found) if r.result.model)
    return (
        "Not reviewed by a physician. Other disease was not looked for.",
        f"{', '.join(models)}  ·  {report.at:%Y-%m-%d %H:%M}  ·  {report.findings.kind.value}",
    )


def _image_headers(ds: Dataset, report: Report, worst: Read, banner_only: bool) -> None:
    header = report.header
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.ConversionType = "WSD"
    ds.BurnedInAnnotation = "YES"
    ds.DerivationDescription = _BANNER if banner_only else _PICTURE
    ds.SourceImageSequence = [image_reference(report, worst.instance)]
    ds.SourceImageSequence[0].PurposeOfReferenceCodeSequence = [codes.SOURCE_IMAGE]
    ds.DateOfSecondaryCapture, ds.TimeOfSecondaryCapture = ds.ContentDate, ds.ContentTime
    ds.PatientOrientation = list(header.patient_orientation) if len(header.patient_orientation) == 2 else None
    for keyword, value in header.lossy.items():
        setattr(ds, keyword, value)
    put_body_part(ds, header, [finding.site for finding in worst.result.findings])
