"""Every real file ends in a status with its reason; none crashes anything. Prints a table (pytest -s)."""

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from config.settings import LookSettings
from inference.analyser import Source
from inference.body_parts import KNOWN_BODY_PARTS
from inference.dcmtk import find_dcmtk
from inference.errors import CannotLook
from inference.jpeg_extended import Limits
from inference.pixels import read_format, stored_frame, stored_values
from ledger.records import ResultStatus
from tests.integration.inference.conftest import MakeAnalyser
from tests.support.realdata import need_data

EVERYTHING = {
    "modalities": ["CR", "DX", "CT", "MR", "MG", "NM", "XA", "US", "RF", "OT", "SC", "PX", "ES", "XC", "PT"],
    "body_parts": sorted({*KNOWN_BODY_PARTS, "CHEST"}),
    "views": [],
    "ages_years": None,
    "min_side_pixels": 1,
}


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.timeout(600)
def test_every_real_file_ends_in_a_status_with_a_reason(make_analyser: MakeAnalyser) -> None:
    folder = need_data("dicom")
    paths = [path for path in files(folder) if "mr_epi_series" not in path.parts or path.name.endswith("1.dcm")]
    analyser = make_analyser()
    looked = analyser.analyse([Source(path) for path in paths])
    table: Counter[tuple[str, str, str]] = Counter()
    for path, entry in zip(paths, looked, strict=True):
        (result,) = entry.results
        assert (result.status is ResultStatus.FAILED) is (result.reason_code == "unreadable"), path
        assert bool(result.reason) is (result.status is not ResultStatus.ANALYSED), path
        table[(entry.modality or "(none)", result.status.value, result.reason_code)] += 1
    print(f"\n{len(paths)} files")
    for (modality, status, reason), count in sorted(table.items()):
        print(f"{count:5d}  {modality:8} {status:15} {reason}")
    assert table[("CR", "not_assessed", "age_outside")] >= 1  # the WG04 chest is of a man of 64


@pytest.mark.timeout(600)
def test_every_real_file_can_be_decoded_or_is_refused(make_analyser: MakeAnalyser) -> None:
    """A package that reads everything, so that every coding goes through the decoders."""
    folder = need_data("dicom")
    paths = [path for path in files(folder) if "mr_epi_series" not in path.parts]
    analyser = make_analyser(packages=[{"reads": EVERYTHING}])
    looked = analyser.analyse([Source(path) for path in paths])
    table: Counter[tuple[str, str, str]] = Counter()
    refused = []
    for path, entry in zip(paths, looked, strict=True):
        (result,) = entry.results
        assert (result.status is ResultStatus.FAILED) is (result.reason_code == "unreadable"), path
        table[(str(path.relative_to(folder).parts[0]), result.status.value, result.reason_code)] += 1
        if result.status is not ResultStatus.ANALYSED:
            refused.append(f"{path.relative_to(folder)}: {result.reason_code}: {result.reason}")
    print(f"\n{len(paths)} files")
    for (group, status, reason), count in sorted(table.items()):
        print(f"{count:5d}  {group:32} {status:15} {reason}")
    print("\n".join(refused))
    assert sum(count for (_, status, _), count in table.items() if status == "analysed") >= 90


def stored(path: Path) -> NDArray[np.int64]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = dcmread(path)
        form = read_format(ds, str(ds.file_meta.TransferSyntaxUID), 1 << 29)
        program = find_dcmtk(LookSettings()).path
        return stored_values(stored_frame(ds, form, program and Limits(program, 20.0, 20.0)), form)


LOSSLESS = ("J2KR", "JLSL", "JPLL", "RLE")


@pytest.mark.parametrize("name", ["RG2", "RG3", "CT1", "CT2", "MR1", "MR2", "MR4", "XA1", "NM1"])
def test_the_codings_of_one_wg04_image_agree(name: str) -> None:
    """Lossless codings are equal to the bit, though three decoders read them; lossy ones stay near."""
    folder = need_data("dicom/wg04")
    found: dict[str, NDArray[np.int64]] = {}
    refused = []
    for path in sorted(folder.glob(f"*/{name}_*")):
        try:
            found[path.parent.name] = stored(path)
        except CannotLook as refusal:
            refused.append((path.parent.name, refusal.reason_code))
    assert refused in ([], [("JPLY", "decoder_missing")])
    lossless = {coding: values for coding, values in found.items() if coding in LOSSLESS}
    reference = lossless["RLE"]
    assert len(lossless) >= 3
    assert all(np.array_equal(values, reference) for values in lossless.values())
    assert np.abs(found["JLSN"] - reference).max() <= 4  # near-lossless says so
    for lossy in ("J2KI", "JPLY"):  # JPLY: JPEG Extended, of 12 bits or of 8
        if lossy in found:
            assert np.abs(found[lossy] - reference).mean() < 0.02 * np.ptp(reference)


def test_one_ct_is_the_same_image_in_every_transfer_syntax() -> None:
    """Also in Big Endian, whose array once kept its byte order and came out as noise."""
    folder = need_data("dicom/one_ct_in_15_transfer_syntaxes")
    reference = stored(folder / "testImages" / "CTImage.dcm")
    far: dict[str, float] = {}
    refused = []
    for path in sorted((folder / "testImages").glob("CTImage.dcm_*")):
        try:
            far[path.name.split("_")[-1]] = float(np.abs(stored(path) - reference).mean())
        except CannotLook as refusal:
            refused.append((path.name[-7:], refusal.reason_code))
    assert refused == [(".55.dcm", "decode_failed"), (".53.dcm", "decode_failed")]
    rescaled = {"1.2.840.10008.1.2.4.50.dcm", "1.2.840.10008.1.2.4.51.dcm"}  # 8 and 12 bit with a slope of their own
    far = {name: distance for name, distance in far.items() if name not in rescaled}
    exact = [syntax for syntax, distance in far.items() if distance == 0.0]
    print(far)
    assert len(far) >= 11
    assert len(exact) >= 8
    assert max(far.values()) < 0.02 * np.ptp(reference)
