"""What a person chooses on the list leaves out what does not fit: by model, by destination, by time, each by itself."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from starlette.datastructures import QueryParams

from ledger.records import TriagePriority
from ledger.worklist import WorklistEntry
from node.web.page_choice import Choice, Chosen, choose

NOW = datetime(2026, 11, 21, 14, 30, tzinfo=UTC)
BARE = WorklistEntry(
    study_instance_uid="",
    priority=TriagePriority.MEDIUM,
    is_prior=False,
    is_complete=True,
    modality="DX",
    instances=1,
    uid_conflicts=0,
    pending=0,
    findings=(),
    critical_flags=(),
    recommendations=(),
    not_assessed_reason="",
    first_received_at=NOW,
    last_received_at=NOW,
    last_image_at=NOW,
    delivered_at=None,
    told_at=None,
    deliveries=(),
    report_priority=None,
)
ENTRIES = [
    replace(BARE, study_instance_uid="1.1", deliveries=(("main-pacs", "delivered"),)),
    replace(BARE, study_instance_uid="1.2", deliveries=(("archive", "waiting"),)),
    replace(BARE, study_instance_uid="1.3", deliveries=(("main-pacs", "waiting"), ("archive", "delivered"))),
    replace(BARE, study_instance_uid="1.4", priority=None, pending=1),
]
MODELS: Mapping[str, frozenset[str]] = {
    "1.1": frozenset({"chest/1.0.0"}),
    "1.2": frozenset({"bone/2.0.0"}),
    "1.3": frozenset({"chest/1.0.0", "bone/2.0.0"}),
}


def chosen(**choice: object) -> Chosen:
    return choose(replace(Choice(), **choice), ENTRIES, MODELS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("choice", "uids"),
    [
        ({}, ["1.1", "1.2", "1.3", "1.4"]),
        ({"model": "chest/1.0.0"}, ["1.1", "1.3"]),
        ({"model": "bone/2.0.0"}, ["1.2", "1.3"]),
        ({"model": "chest/9.9.9"}, []),
        ({"destination": "main-pacs"}, ["1.1", "1.3"]),
        ({"destination": "archive"}, ["1.2", "1.3"]),
        ({"destination": "elsewhere"}, []),
        ({"model": "chest/1.0.0", "destination": "archive"}, ["1.3"]),
        ({"state": "looking"}, ["1.4"]),
        ({"state": "delivered"}, ["1.1"]),
        ({"state": "unsent"}, ["1.2", "1.3"]),
        ({"priorities": ("waiting",)}, ["1.4"]),
        ({"search": "1.2"}, ["1.2"]),
    ],
)
def test_only_what_was_chosen_is_shown(choice: dict[str, object], uids: list[str]) -> None:
    found = chosen(**choice)
    assert [entry.study_instance_uid for entry in found.entries] == uids
    assert found.found == len(uids)


def test_whatever_was_chosen_everything_can_be_chosen_next() -> None:
    found = chosen(model="chest/1.0.0", destination="main-pacs")
    assert found.models == ("bone/2.0.0", "chest/1.0.0")
    assert found.destinations == ("archive", "main-pacs")


@pytest.mark.parametrize(("since", "hours"), [("1h", 1), ("24h", 24), ("7d", 168), ("30d", 720)])
def test_the_time_chosen_is_counted_back_from_now(since: str, hours: int) -> None:
    assert Choice(since=since).began(NOW) == NOW - timedelta(hours=hours)


def test_what_nobody_has_read_yet_is_not_gone_from_the_list_at_midnight() -> None:
    assert Choice().began(NOW) == NOW - timedelta(hours=24)
    assert Choice.of(QueryParams("")).address() == "/"


def test_today_begins_at_midnight() -> None:
    now = datetime.now().astimezone()
    began = Choice(since="day").began(now)
    assert (began.hour, began.minute, began.second, began.microsecond) == (0, 0, 0, 0)
    assert began.date() in (now.date(), (now + timedelta(minutes=1)).date())  # midnight may pass meanwhile
