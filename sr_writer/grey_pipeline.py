"""How a stored image becomes grey on a screen, read so that a presentation state can say the same (PS3.3 C.11)."""

import warnings
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.valuerep import DSfloat

from sr_writer.errors import SourceUnreadable
from sr_writer.source import UNREADABLE, Values

_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


@dataclass(frozen=True)
class GreyPipeline:
    """rows, columns: of the image. spacing: mm, rows then columns; () when the header does not say."""

    rows: int
    columns: int
    spacing: tuple[float, ...]
    _attributes: Dataset = field(repr=False)

    def put_into(self, ds: Dataset) -> None:
        """Modality LUT, Softcopy VOI LUT and Softcopy Presentation LUT modules."""
        for element in self._attributes:
            ds[element.tag] = element


def read_pipeline(path: Path) -> GreyPipeline:
    """Raises SourceUnreadable when it is not DICOM, not grey or has no size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings quote values
        try:
            ds = dcmread(path, stop_before_pixels=True, force=True)
            values = Values(ds)
            return _pipeline(ds, values)
        except UNREADABLE as error:
            raise SourceUnreadable(f"a stored source cannot be read ({type(error).__name__})") from None


def _pipeline(ds: Dataset, values: Values) -> GreyPipeline:
    photometric = values.text("PhotometricInterpretation")
    rows, columns = values.whole("Rows"), values.whole("Columns")
    if photometric not in ("MONOCHROME1", "MONOCHROME2") or not rows or not columns:
        raise SourceUnreadable("a stored source is no grey image of a known size")
    out = Dataset()
    _modality(out, ds, values)
    _voi(out, ds, values)
    out.PresentationLUTShape = "INVERSE" if photometric == "MONOCHROME1" else "IDENTITY"
    spacing = values.numbers("PixelSpacing") or values.numbers("ImagerPixelSpacing")
    known = len(spacing) == 2 and min(spacing) > 0.0
    return GreyPipeline(rows, columns, spacing if known else (), out)


def _modality(out: Dataset, ds: Dataset, values: Values) -> None:
    slope, intercept = values.numbers("RescaleSlope"), values.numbers("RescaleIntercept")
    if len(slope) == len(intercept) == 1 and slope[0]:
        out.RescaleSlope, out.RescaleIntercept = _decimal(slope[0]), _decimal(intercept[0])
        out.RescaleType = values.text("RescaleType")[:16] or ("HU" if values.text("Modality") == "CT" else "US")
    elif table := _table(ds, "ModalityLUTSequence"):
        out.ModalityLUTSequence = [table]


def _voi(out: Dataset, ds: Dataset, values: Values) -> None:
    """The first of the source's own windows or tables, as a viewer shows it at first."""
    item = Dataset()
    centers, widths = values.numbers("WindowCenter"), values.numbers("WindowWidth")
    if table := _table(ds, "VOILUTSequence"):
        item.VOILUTSequence = [table]
    elif centers and widths and widths[0] >= 1.0:
        item.WindowCenter, item.WindowWidth = _decimal(centers[0]), _decimal(widths[0])
        function = values.text("VOILUTFunction")
        if function in _FUNCTIONS[1:]:
            item.VOILUTFunction = function
    else:
        return
    out.SoftcopyVOILUTSequence = [item]


def _table(ds: Dataset, keyword: str) -> Dataset | None:
    """The first look-up table of a sequence, checked and written anew; None when it is not whole."""
    items = ds.get(keyword) or ()
    if not items or "LUTDescriptor" not in items[0] or "LUTData" not in items[0]:
        return None
    source = correct_ambiguous_vr(Dataset(items[0]), True, ancestors=[ds])  # implicit VR leaves US or SS open
    entries, first, bits = (int(value) for value in source.LUTDescriptor)
    data = source.LUTData
    if not isinstance(data, bytes):
        data = b"".join(int(value).to_bytes(2, "little") for value in data)
    if not 1 <= bits <= 16 or len(data) not in ((entries or 65536) * 2, (entries or 65536)):
        return None
    table = Dataset()
    table.add_new("LUTDescriptor", "SS" if first < 0 else "US", [entries, first, bits])
    if keyword == "ModalityLUTSequence":
        table.ModalityLUTType = Values(source).text("ModalityLUTType")[:16] or "US"
    table.add_new("LUTData", "OW", data + b"\0" * (len(data) % 2))
    return table


def _decimal(value: float) -> DSfloat:
    """VR DS holds 16 characters."""
    return DSfloat(value, auto_format=True)
