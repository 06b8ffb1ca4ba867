"""A line of the log never names a patient."""

import json
import logging
import warnings
from collections.abc import Iterator

import pytest
import structlog

from ledger.errors import PermanentError
from node import logging as node_logging
from node.logging import REFUSED, configure, describe

SENTINEL = "SENTINEL^PATIENT"


@pytest.fixture
def log(capfd: pytest.CaptureFixture[str]) -> Iterator[pytest.CaptureFixture[str]]:
    import sys
    import threading

    before = sys.excepthook, threading.excepthook, logging.getLogger().handlers[:], logging.getLogger().level
    configure("debug", "test")
    yield capfd
    sys.excepthook, threading.excepthook, handlers, level = before
    logging.getLogger().handlers[:], logging.getLogger().level = handlers, level
    logging.captureWarnings(capture=False)
    logging.getLogger("pynetdicom").setLevel(logging.NOTSET)
    structlog.reset_defaults()


def last_line(log: pytest.CaptureFixture[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(log.readouterr().err.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    "key", ["PatientName", "patient_name", "patient_id", "PatientBirthDate", "accession_number", "ds"]
)
def test_a_key_that_names_a_person_is_refused_however_it_is_spelt(log: pytest.CaptureFixture[str], key: str) -> None:
    structlog.get_logger().info("something", **{key: SENTINEL})
    assert last_line(log)[key] == REFUSED


def test_a_key_that_names_a_person_is_refused_at_any_depth(log: pytest.CaptureFixture[str]) -> None:
    structlog.get_logger().info("something", header={"inner": {"PatientID": SENTINEL}})
    assert SENTINEL not in json.dumps(last_line(log))


def test_the_text_of_another_librarys_error_is_not_logged(log: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError(f"bad value {SENTINEL}")
    except ValueError:
        structlog.get_logger().error("failed", exc_info=True)
    line = last_line(log)
    assert SENTINEL not in json.dumps(line)
    assert line["error"] == "ValueError"
    assert "test_node_logging.py" in str(line["where"])


def test_an_error_as_a_value_loses_its_text_too(log: pytest.CaptureFixture[str]) -> None:
    structlog.get_logger().error("failed", error=KeyError(SENTINEL))
    assert SENTINEL not in json.dumps(last_line(log))


def test_our_own_errors_keep_their_sentence() -> None:
    assert describe(PermanentError("the model is missing")) == "PermanentError: the model is missing"


def test_a_pydicom_warning_is_kept_as_a_place_without_its_values(log: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn(f"Invalid value {SENTINEL}", UserWarning, stacklevel=1)
    logging.getLogger("pydicom").warning("Invalid value %s", SENTINEL)
    text = log.readouterr().err
    assert text.count("library_message") == 2
    assert SENTINEL not in text


def test_an_unhandled_error_is_one_json_line_without_values(log: pytest.CaptureFixture[str]) -> None:
    error = ValueError(SENTINEL)
    node_logging._unhandled(ValueError, error, None)
    assert last_line(log)["event"] == "unhandled_error"


def test_a_data_set_under_any_key_is_only_named_by_its_kind(log: pytest.CaptureFixture[str]) -> None:
    from tests.support.dx import make_dx

    structlog.get_logger().info("something", harmless=make_dx(PatientName=SENTINEL))
    assert last_line(log)["harmless"] == "<Dataset>"
