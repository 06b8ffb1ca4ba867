"""A model of one MR contrast reads only series that are called by it; nothing else is asked of a name."""

from dataclasses import replace
from pathlib import Path

import pytest

from config.settings import LookSettings
from inference.header import HeaderFacts, facts_from_json, read_header
from inference.package import load_packages
from inference.route import route
from tests.support.dx import make_dx
from tests.support.packages import write_package
from tests.unit.inference.test_header import TABLES

MR = HeaderFacts(modality="MR", body_part="BRAIN", has_pixels=True, rows=256, columns=256)
READS = {
    "modalities": ["MR"],
    "body_parts": ["BRAIN", "HEAD"],
    "views": [],
    "ages_years": None,
    "descriptions": ["flair", "fluid attenuated", "fluid_attenuated"],
    "not_descriptions": ["t1"],
}


@pytest.mark.parametrize(
    ("texts", "read"),
    [
        (("AX T2 FLAIR",), True),
        (("t2_flair_tra_fs",), True),
        (("brain routine", "FLAIR-AX"), True),
        (("FLUID_ATTENUATED",), True),
        (("AX T1 FLAIR",), False),
        (("t1_mprage", "flair"), False),
        (("AX T1 POST",), False),
        (("unflairlike",), False),
        ((), False),
    ],
)
def test_a_series_is_read_by_what_it_is_called(tmp_path: Path, texts: tuple[str, ...], read: bool) -> None:
    write_package(tmp_path, name="flair", reads=READS)
    routing = route(replace(MR, series_texts=texts), load_packages(LookSettings(models_dir=tmp_path)))
    assert bool(routing.packages) is read
    assert read or routing.otherwise.reason_code == "series_not_read"


def test_a_package_that_wants_no_name_reads_any(tmp_path: Path) -> None:
    write_package(tmp_path, reads={"modalities": ["MR"], "body_parts": ["BRAIN"], "views": []})
    packages = load_packages(LookSettings(models_dir=tmp_path))
    assert route(MR, packages).packages == route(replace(MR, series_texts=("AX T1",)), packages).packages == packages


def test_the_texts_come_from_protocol_series_and_contrast() -> None:
    ds = make_dx(ProtocolName="Head^routine", SeriesDescription="AX FLAIR", AcquisitionContrast="FLUID_ATTENUATED")
    facts = read_header(ds, TABLES)
    assert facts.series_texts == ("Head^routine", "AX FLAIR", "FLUID_ATTENUATED")
    assert facts_from_json({**facts.to_json(), "series_texts": list(facts.series_texts)}) == facts
    assert read_header(make_dx(ProtocolName=None, SeriesDescription=None), TABLES).series_texts == ()


@pytest.mark.parametrize("texts", [["x" * 400], ["x"] * 17, [1]])
def test_texts_that_a_child_may_not_send_are_refused(texts: list[object]) -> None:
    with pytest.raises(ValueError, match=r"series_texts|not header facts"):
        facts_from_json({**HeaderFacts().to_json(), "image_type": [], "series_texts": texts})
