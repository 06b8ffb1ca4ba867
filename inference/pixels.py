"""Stored pixel values of one frame of an untrusted data set, after every sum that can be done before decoding.

pydicom turns lies about Rows, Columns or Bits Allocated into arrays of another shape with a warning, so the length of
Pixel Data must fit exactly (PS3.3 C.7.6.3, PS3.5 8). Of a multi-frame image the middle frame is looked at.
"""

import io
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from inference.codestream import BASELINE, EXTENDED, JPEG_LS, LOSSLESS, Declared, check_end, check_rle, declared_by
from inference.elements import MalformedElement, has, integer, text, unsigned
from inference.errors import CannotLook
from inference.jpeg_extended import Limits, decode_frame
from inference.jpeg_whole import by_pylibjpeg, is_whole
from inference.lossless_proof import is_proven
from inference.rle import planes, samples

LITTLE_ENDIAN = frozenset({ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian})
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
CUT_SHORT = "The compressed frame is cut short."
OTHER_KIND = "The compressed frame is not of the kind that its transfer syntax names."
KINDS = {  # which frame headers a transfer syntax may have; 0, JPEG 2000, for those that are not here
    JPEGBaseline8Bit: (BASELINE, EXTENDED),
    JPEGExtended12Bit: (BASELINE, EXTENDED),
    JPEGLossless: (LOSSLESS,),
    JPEGLosslessSV1: (LOSSLESS,),
    JPEGLSLossless: (JPEG_LS,),
    JPEGLSNearLossless: (JPEG_LS,),
}
MAX_FRAMES = 100_000
OVERSHOOT_BITS = 5  # a lossy codec of 12 bits shoots over an edge: 10 bits of 1023 come out as 1024, but not as 1055
GREY_TOLERANCE = 4  # of 255: how far three channels may lie apart and still be one grey


@dataclass(frozen=True)
class PixelFormat:
    """How the pixels are stored. Checked: each value is possible by itself and with the others."""

    rows: int
    columns: int
    frames: int
    samples: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    photometric: str
    transfer_syntax: UID

    @property
    def middle_frame(self) -> int:
        return self.frames // 2

    @property
    def frame_bits(self) -> int:
        """Of one uncompressed frame; YBR_FULL_422 shares its colours between two columns (PS3.3 C.7.6.3.1.2)."""
        shared = self.photometric == "YBR_FULL_422" and not self.transfer_syntax.is_encapsulated
        samples = 2 if shared else self.samples
        return self.rows * self.columns * samples * self.bits_allocated

    @property
    def decoded_bytes(self) -> int:
        """What one decoded frame fills."""
        return self.rows * self.columns * self.samples * max(1, self.bits_allocated // 8)


def read_format(ds: Dataset, transfer_syntax: str, decoded_max_bytes: int) -> PixelFormat:
    """Raises CannotLook for values that are missing, impossible or too large."""
    try:
        photometric = text(ds, "PhotometricInterpretation", ("CS",)).upper()
        bits_allocated = _need(ds, "BitsAllocated")
        bits_stored = bits_allocated if (stored := unsigned(ds, "BitsStored")) is None else stored
        high_bit = unsigned(ds, "HighBit")
        form = PixelFormat(
            rows=_need(ds, "Rows"),
            columns=_need(ds, "Columns"),
            frames=1 if (frames := integer(ds, "NumberOfFrames")) is None else frames,
            samples=_need(ds, "SamplesPerPixel"),
            bits_allocated=bits_allocated,
            bits_stored=bits_stored,
            high_bit=bits_stored - 1 if high_bit is None else high_bit,
            signed=_need(ds, "PixelRepresentation", absent=0) == 1,
            photometric=photometric,
            transfer_syntax=UID(transfer_syntax),
        )
        if _need(ds, "PixelRepresentation", absent=0) > 1:
            raise MalformedElement("PixelRepresentation must be 0 or 1")
    except MalformedElement as error:
        raise CannotLook("header_malformed", f"{error}.") from None
    _check(form, decoded_max_bytes)
    return form


def stored_frame(ds: Dataset, form: PixelFormat, dcmtk: Limits | None = None) -> NDArray[Any]:
    """The raw samples of the middle frame: (rows, columns) integers of `bits_allocated`, or (rows, columns, 3) uint8.

    Grey samples may carry other bits above Bits Stored; `stored_values` removes them. dcmtk: the program for 12-bit
    JPEG Extended, None where there is none. Raises CannotLook.
    """
    if not has(ds, "PixelData"):
        raise CannotLook("no_pixel_data", "The instance holds no pixel data that a model could look at.")
    element = ds.get_item("PixelData")
    data = element.value if element is not None else None
    if not isinstance(data, bytes) or element.VR not in ("OB", "OW", "OB or OW", None):
        raise CannotLook("header_malformed", "PixelData must have the VR OB or OW.")
    if form.transfer_syntax.is_encapsulated:
        return _decompressed(ds, form, data, dcmtk)
    _check_length(form, data)
    if form.samples == 1 and form.transfer_syntax in LITTLE_ENDIAN:
        return _uncompressed(form, data)
    return _by_pydicom(ds, form, form.middle_frame)


def stored_values(raw: NDArray[Any], form: PixelFormat) -> NDArray[np.int64]:
    """What the samples mean: the bits from High Bit down, signed where Pixel Representation says so."""
    value = raw.astype(np.int64) >> (form.high_bit + 1 - form.bits_stored)
    value &= (1 << form.bits_stored) - 1
    if form.signed:
        value -= (value & (1 << (form.bits_stored - 1))) << 1
    return value


def grey_of(colour: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(rows, columns, 3) to (rows, columns), when the three channels are one grey. Raises CannotLook for a colour."""
    spread = colour.max(axis=2).astype(np.int16) - colour.min(axis=2)
    if np.mean(spread > GREY_TOLERANCE) > 0.001:
        raise CannotLook("colour", "The picture is in colour.")
    return np.ascontiguousarray(colour[:, :, 1])


def _need(ds: Dataset, keyword: str, absent: int | None = None) -> int:
    value = unsigned(ds, keyword)
    if value is None:
        value = absent
    if value is None:
        raise MalformedElement(f"{keyword} is missing")
    return value


def _check(form: PixelFormat, decoded_max_bytes: int) -> None:
    if form.rows < 1 or form.columns < 1 or not 1 <= form.frames <= MAX_FRAMES:
        raise CannotLook("header_malformed", "Rows, columns and frames must be positive.")
    grey = form.samples == 1 and form.photometric in GREY
    colour = form.samples == 3 and form.photometric in COLOUR and form.bits_allocated == 8
    if not grey and not colour:
        raise CannotLook("photometric_unsupported", "The samples and the photometric interpretation are not supported.")
    if form.bits_allocated not in (1, 8, 16, 32) or not 1 <= form.bits_stored <= form.bits_allocated:
        raise CannotLook("header_malformed", "Bits Allocated and Bits Stored do not fit each other.")
    if not form.bits_stored - 1 <= form.high_bit < form.bits_allocated:
        raise CannotLook("header_malformed", "High Bit does not fit Bits Stored.")
    if form.transfer_syntax.is_encapsulated and form.high_bit != form.bits_stored - 1:
        raise CannotLook("header_malformed", "High Bit of compressed pixel data must be one less than Bits Stored.")
    if form.decoded_bytes > decoded_max_bytes:
        raise CannotLook("decode_limit", "The decoded frame would be larger than this node allows.")


def _check_length(form: PixelFormat, data: bytes) -> None:
    exact = (form.frame_bits * form.frames + 7) // 8
    if len(data) not in (exact, exact + exact % 2):
        raise CannotLook("pixel_length", "Pixel Data is not as long as rows, columns, bits and frames say.")


def _uncompressed(form: PixelFormat, data: bytes) -> NDArray[Any]:
    pixels, first = form.rows * form.columns, form.rows * form.columns * form.middle_frame
    if form.bits_allocated == 1:
        first_byte, skip = divmod(first, 8)
        packed = np.frombuffer(data, np.uint8, (skip + pixels + 7) // 8, first_byte)
        return np.unpackbits(packed, bitorder="little")[skip : skip + pixels].reshape(form.rows, form.columns)
    dtype = np.dtype(f"<u{form.bits_allocated // 8}")
    return np.frombuffer(data, dtype, pixels, first * dtype.itemsize).reshape(form.rows, form.columns)


def _decompressed(ds: Dataset, form: PixelFormat, data: bytes, dcmtk: Limits | None) -> NDArray[Any]:
    fragments = _count_fragments(data)
    if not 1 <= form.frames <= fragments:
        raise CannotLook("decode_failed", "The compressed pixel data hold fewer fragments than frames.")
    try:
        frame = get_frame(data, form.middle_frame, number_of_frames=form.frames)
    except (ValueError, EOFError, struct.error, IndexError) as error:
        raise CannotLook("decode_failed", "The compressed pixel data cannot be taken apart.") from error
    if form.transfer_syntax == RLELossless:
        return _rle(form, frame)
    said = _check_codestream(form, frame)
    if said.marker == LOSSLESS:
        return _lossless(form, frame, said)
    if form.transfer_syntax == JPEGExtended12Bit and said.precision == 12:
        return _by_dcmtk(form, frame, said, dcmtk)
    if said.marker == JPEG_LS:
        return _jpeg_ls(form, frame)
    if said.marker in (BASELINE, EXTENDED) and not is_whole(frame, check_end(frame)):
        raise CannotLook("decode_failed", CUT_SHORT)
    return _by_pydicom(_alone(form, frame), form, 0)


def _by_dcmtk(form: PixelFormat, frame: bytes, said: Declared, dcmtk: Limits | None) -> NDArray[Any]:
    """JPEG Extended of 12 bits, which no decoder of pydicom's reads. Such a frame is grey: colours of more than 8 bits
    are refused before."""
    if form.signed or form.bits_allocated != 16 or form.bits_stored > 12 or form.high_bit != form.bits_stored - 1:
        raise CannotLook("header_malformed", "12-bit JPEG Extended holds unsigned samples of 12 bits, allocated 16.")
    if said.marker != EXTENDED:
        raise CannotLook("decode_failed", OTHER_KIND)
    if dcmtk is None:
        raise CannotLook("decoder_missing", "12-bit JPEG Extended needs DCMTK's dcmdjpeg, which this node has not.")
    array = decode_frame(frame, form.rows, form.columns, form.bits_stored, dcmtk)
    ceiling = (1 << form.bits_stored) - 1
    if int(array.max()) > ceiling + (ceiling >> OVERSHOOT_BITS):
        raise CannotLook("pixel_length", "The compressed frame holds values beyond Bits Stored.")
    return np.minimum(array, np.uint16(ceiling))


def _rle(form: PixelFormat, frame: bytes) -> NDArray[Any]:
    """Greys by ourselves; colours, whose length is checked here, by pydicom, which knows their spaces."""
    each, pixels = max(1, form.bits_allocated // 8), form.rows * form.columns
    check_rle(frame, form.samples * each, pixels)
    if form.samples == 1 and form.bits_allocated > 1:
        return samples(frame, each, form.rows, form.columns)
    if form.bits_allocated > 1:
        planes(frame, form.samples * each, pixels)
    return _by_pydicom(_alone(form, frame), form, 0)


def _jpeg_ls(form: PixelFormat, frame: bytes) -> NDArray[Any]:
    """By CharLS, which insists that the data end where the last sample does; real frames exist that do not. Those by
    pylibjpeg-libjpeg, which insists on nothing, where no sample is missing."""
    alone = _alone(form, frame)
    try:
        return _by_pydicom(alone, form, 0, "pyjpegls")
    except CannotLook:
        if not is_whole(frame, check_end(frame), by_pylibjpeg):
            raise
    return _by_pydicom(alone, form, 0, "pylibjpeg")


def _alone(form: PixelFormat, frame: bytes) -> Dataset:
    """One frame and what a decoder must know of it: no offset table and no other element of the instance has a say."""
    ds = Dataset()
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = form.samples, form.photometric, 0
    ds.Rows, ds.Columns, ds.PixelRepresentation = form.rows, form.columns, int(form.signed)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = form.bits_allocated, form.bits_stored, form.high_bit
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].VR = "OB"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = form.transfer_syntax
    return ds


def _lossless(form: PixelFormat, frame: bytes, said: Declared) -> NDArray[Any]:
    """JPEG Lossless wraps its differences modulo 2^16 (ITU-T T.81 H.2.1). pylibjpeg-libjpeg clips them (its issue 90)
    and returns white for grey. So 8 bits are decoded by libjpeg-turbo; more are held against the frame."""
    if form.samples == 3 and form.photometric != "RGB":
        raise CannotLook("photometric_unsupported", "Of colours, JPEG Lossless is decoded as RGB only.")
    end = check_end(frame)
    if form.bits_allocated == 8:
        if not is_whole(frame, end):
            raise CannotLook("decode_failed", CUT_SHORT)
        return _by_pillow(form, frame)
    array = _by_pydicom(_alone(form, frame), form, 0)
    if not is_proven(frame, array, said.precision):
        raise CannotLook("decode_failed", "The decoder returned something else than the compressed frame holds.")
    return array


def _by_pillow(form: PixelFormat, frame: bytes) -> NDArray[Any]:
    """(rows, columns) or (rows, columns, 3) uint8, by libjpeg-turbo."""
    try:
        with Image.open(io.BytesIO(frame), formats=("JPEG",)) as picture:
            array = np.asarray(picture)
    except (OSError, ValueError, SyntaxError, struct.error) as error:
        raise CannotLook("decode_failed", "The pixel data cannot be decoded.") from error
    colours = () if form.samples == 1 else (3,)
    if array.shape != (form.rows, form.columns, *colours) or array.dtype != np.uint8:
        raise CannotLook("decode_failed", "The decoder returned another size than the header says.")
    return array


def _check_codestream(form: PixelFormat, frame: bytes) -> Declared:
    said = declared_by(frame)
    if said is None:
        raise CannotLook("decode_failed", "The compressed frame is not of a kind that this node decodes.")
    if (said.rows, said.columns, said.components) != (form.rows, form.columns, form.samples):
        raise CannotLook("pixel_length", "The compressed frame has another size than the header says.")
    if said.precision > form.bits_allocated:
        raise CannotLook("pixel_length", "The compressed frame has more bits than the header allocates.")
    if said.marker not in KINDS.get(form.transfer_syntax, (0,)):
        raise CannotLook("decode_failed", OTHER_KIND)
    return said


def _by_pydicom(ds: Dataset, form: PixelFormat, index: int, plugin: str = "") -> NDArray[Any]:
    """(rows, columns) unsigned of bits_allocated, or (rows, columns, 3) uint8.

    plugin: without one pydicom asks the next when one refuses, which may be less strict.
    """
    try:
        decoder = get_decoder(form.transfer_syntax)
        array, _ = decoder.as_array(ds, index=index, raw=form.samples == 1, decoding_plugin=plugin)
    except MemoryError:
        raise
    except Exception as error:  # plug-ins raise whatever they like; every one means the same
        raise CannotLook("decode_failed", "The pixel data cannot be decoded.") from error
    expected = (form.rows, form.columns) if form.samples == 1 else (form.rows, form.columns, 3)
    if array.shape != expected:
        raise CannotLook("decode_failed", "The decoder returned another size than the header says.")
    if form.samples == 3:
        return np.asarray(array, np.uint8)
    _check_range(array, form)
    native = array.astype(array.dtype.newbyteorder("="), copy=False)  # Big Endian arrays keep their order until here
    return np.asarray(native.view(np.dtype(f"u{array.dtype.itemsize}")))


def _check_range(array: NDArray[Any], form: PixelFormat) -> None:
    """A decoder that returns more bits than are stored has misunderstood the frame."""
    if array.dtype.kind not in "iu" or array.dtype.itemsize * 8 != max(8, form.bits_allocated):
        raise CannotLook("decode_failed", "The decoder returned another depth than the header says.")
    low, high = int(array.min()), int(array.max())
    floor, ceiling = (
        (-(1 << form.bits_stored - 1), (1 << form.bits_stored - 1) - 1)
        if form.signed
        else (0, (1 << form.bits_stored) - 1)
    )
    compressed = form.transfer_syntax.is_encapsulated
    if compressed and (low < floor or high > ceiling):
        raise CannotLook("pixel_length", "The compressed frame holds values beyond Bits Stored.")


def _count_fragments(data: bytes) -> int:
    """Fragments after the offset table, by walking the items (PS3.5 A.4). Raises CannotLook when they do not fit."""
    at, items = 0, 0
    while at + 8 <= len(data):
        group, element, length = struct.unpack_from("<HHI", data, at)
        if (group, element) == (0xFFFE, 0xE0DD):
            break
        at += 8 + length
        if (group, element) != (0xFFFE, 0xE000) or at > len(data):
            raise CannotLook("pixel_length", "The compressed pixel data are cut short or damaged.")
        items += 1
    return items - 1
