"""What a radiograph costs beside the model: reading, decoding, windowing, resizing, and the reports."""

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from benchmarks.timing import Bench, Report, interleaved
from config.settings import Settings
from inference.analyser import Analyser, Source
from inference.decode_child import _display
from inference.fit_input import resize, stretch
from inference.package import Package
from inference.pixels import read_format, stored_frame
from inference.voi import render
from ledger.store import Store
from node.trying.demo import fresh_samples
from sr_writer.build import build_objects
from sr_writer.warm_up import UID, _findings, _source

ROWS, COLUMNS = 3000, 2500


def radiograph(seed: int = 1) -> NDArray[np.uint16]:
    """(3000, 2500) of 12 bits: smooth anatomy under the noise of a detector."""
    y, x = np.mgrid[-1.0 : 1.0 : ROWS * 1j, -1.0 : 1.0 : COLUMNS * 1j]
    body = 2600.0 * np.exp(-(x**2 * 1.4 + y**2 * 0.9)) + 500.0 * np.sin(13.0 * y) * np.cos(5.0 * x) ** 2
    noise = np.random.default_rng(seed).normal(0.0, 12.0, (ROWS, COLUMNS))
    return np.asarray(np.clip(body + 600.0 + noise, 0, 4095), np.uint16)


def files(folder: Path) -> dict[str, Path]:
    """The same 12-bit DX in every coding that can be made here."""
    [sample, *_] = sorted(fresh_samples(folder / "samples"))
    ds = dcmread(sample)
    if ds.file_meta.TransferSyntaxUID.is_encapsulated:
        ds.decompress()
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit = ROWS, COLUMNS, 16, 12, 11
    ds.WindowCenter, ds.WindowWidth = "2048", "4096"
    ds.PixelData = radiograph().tobytes()
    made = {"uncompressed": folder / "plain.dcm"}
    ds.save_as(made["uncompressed"], enforce_file_format=True)
    for name, syntax in (("RLE", RLELossless), ("JPEG-LS", JPEGLSLossless), ("JPEG 2000", JPEG2000Lossless)):
        ds = dcmread(made["uncompressed"])
        ds.compress(syntax, generate_instance_uid=False)
        made[name] = folder / f"{name}.dcm"
        ds.save_as(made[name], enforce_file_format=True)
    if which("dcmcjpeg"):
        made["JPEG Lossless"] = folder / "jpll.dcm"
        subprocess.run(["dcmcjpeg", "+e1", made["uncompressed"], made["JPEG Lossless"]], check=True)
    return made


def decoding(made: dict[str, Path], rounds: int, report: Report) -> None:
    report.heading(f"Reading and decoding a DX of {COLUMNS} x {ROWS}, 12 bit")
    benches: dict[str, tuple[Bench, int]] = {}
    for name, path in made.items():
        size = path.stat().st_size / 1e6
        benches[f"{name} ({size:.1f} MB)"] = (lambda path=path: samples_of(path), 1)  # type: ignore[misc]
    report.rows(interleaved(benches, rounds))


def samples_of(path: Path) -> tuple[Any, Any, NDArray[Any]]:
    ds = dcmread(path)
    form = read_format(ds, str(ds.file_meta.TransferSyntaxUID), 1 << 30)
    return ds, form, stored_frame(ds, form)


def preprocessing(path: Path, package: Package, rounds: int, report: Report) -> None:
    ds, form, samples = samples_of(path)
    spec = package.manifest.input
    picture = render(samples, form, ds, "header")
    small = resize(picture, spec.height, spec.width, spec.fit)
    report.heading("The same image, decoded, to the model's input and to the display picture")
    benches: dict[str, tuple[Bench, int]] = {
        "Modality LUT, VOI LUT, polarity": (lambda: render(samples, form, ds, "header"), 1),
        f"resize to {spec.width} x {spec.height}": (lambda: resize(picture, spec.height, spec.width, spec.fit), 1),
        "stretch between percentiles": (lambda: stretch(small, 0.5, 99.5), 1),
        "darkest and brightest": (lambda: (picture.min(), picture.max()), 1),
        "display picture, 1024": (lambda: _display(picture, 1024), 1),
    }
    report.rows(interleaved(benches, rounds))


def reports(rounds: int, report: Report) -> None:
    """All three objects of a flagged study, in a warm process."""
    from sr_writer import build, measurement_report, secondary_capture, text_report

    settings = Settings()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        (store.root / "instances").mkdir()
        _source().save_as(store.path("instances/source.dcm"), enforce_file_format=True)
        findings = _findings("instances/source.dcm")
        kept: list[Any] = []
        whole: Callable[..., Any] = build._objects
        build._objects = lambda *known: kept.append(known) or whole(*known)  # type: ignore[assignment,func-returns-value]
        try:
            build_objects(findings, store, settings, UID, "generic-pacs")
        finally:
            build._objects = whole
        made = kept[0][0]
        report.heading("Building the reports of a flagged study")
        benches: dict[str, tuple[Bench, int]] = {
            "measurement SR": (lambda: measurement_report.measurement_report(made), 1),
            "text SR": (lambda: text_report.text_report(made), 1),
            "Secondary Capture": (lambda: secondary_capture.secondary_capture(made, store), 1),
            "all, with the source's header": (
                lambda: build_objects(findings, store, settings, UID, "generic-pacs"),
                1,
            ),
        }
        report.rows(interleaved(benches, rounds))


def whole_look(made: dict[str, Path], package: Package, rounds: int, report: Report) -> None:
    """Header, decoding in the child, preprocessing, model, findings, the picture. Processor: this process's alone."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        store.prepare()
        analyser = Analyser(Settings(), (package,), store)
        try:
            report.heading(f"The whole look, {analyser.provider}: file to finding through the decode child")
            benches: dict[str, tuple[Bench, int]] = {
                name: (lambda path=path: analyser.analyse([Source(path)]), 1)  # type: ignore[misc]
                for name, path in made.items()
            }
            report.rows(interleaved(benches, rounds))
        finally:
            analyser.close()
