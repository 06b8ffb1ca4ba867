"""SECURITY.md says what the program does: its table of roles is made from node/running/confine.py, its tests exist."""

import re
from pathlib import Path

from config import Settings
from inference.landlock import WRITE
from ledger import reach
from node.running.confine import ANY, COMMON, PLACES, PORTS, ROLES, May, files_of, table
from tests.support.realdata import ROOT

PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def test_the_table_of_roles_is_the_one_that_is_enforced() -> None:
    assert "\n".join(table()) in PAGE


def test_every_test_and_page_that_is_named_exists() -> None:
    named = re.findall(r"tests/[\w/]+\.py", PAGE) + re.findall(r"\]\(([\w/.]+)\)", PAGE)
    folders = {str(Path(name).parent) for name in named}
    bare = re.findall(r"(?<![\w/])test_\w+\.py", PAGE)
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert [name for name in bare if not any((ROOT / folder / name).exists() for folder in folders)] == []


def test_nothing_that_decodes_or_infers_has_a_network_and_no_receiver_reads_models_or_results() -> None:
    assert ROLES["analyse"].calls == ROLES["analyse"].listens == ROLES["report"].calls == ROLES["report"].listens == ()
    for role in ("receive", "deliver", "keep"):
        assert "models" not in ROLES[role].reads
    for role in ("receive", "web", "deliver"):
        assert "results" not in ROLES[role].writes
    assert not {"results", "models"} & {*ROLES["receive"].reads, *ROLES["receive"].writes}
    assert [role for role, may in ROLES.items() if ANY in may.calls] == ["deliver", "keep"]


def test_every_word_of_the_table_means_something() -> None:
    for may in ROLES.values():
        assert isinstance(may, May)
        assert {*may.reads, *may.writes} <= PLACES.keys()
        assert {*may.listens, *may.calls} - {ANY} <= PORTS.keys()
    assert "the ledger" in COMMON


def test_the_chain_heads_may_be_written_where_the_settings_put_them(tmp_path: Path) -> None:
    """Best on another disk, says the manual: so outside the state folder, which is all that `keep` may write else."""
    settings = Settings.model_validate({"audit": {"heads_file": tmp_path / "heads" / "heads.jsonl"}})
    assert files_of(ROLES["keep"], settings, reach.of(settings.database_url))[tmp_path / "heads"] == WRITE
