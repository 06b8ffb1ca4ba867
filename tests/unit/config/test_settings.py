import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from config import ConfigError, Settings, load_settings, origins
from config.load import DEFAULT_FILE, SITE_FILE
from config.wanted import WANTED


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(text)
    return path


def test_the_manual_states_exactly_the_defaults() -> None:
    assert load_settings(DEFAULT_FILE) == Settings()


def test_the_manual_names_every_setting() -> None:
    unnamed = {key for key, _, origin in origins(load_settings(DEFAULT_FILE), DEFAULT_FILE) if origin == "default"}
    assert unnamed == {"destinations", "commitment_requestors", "peers", "adapters"}  # no default: shown in comments


def test_each_value_knows_where_it_came_from(tmp_path: Path) -> None:
    path = written(tmp_path, "[receive]\nport = 104\n")
    found = {key: (value, origin) for key, value, origin in origins(load_settings(path), path)}
    assert found["receive.port"] == (104, str(path))
    assert found["receive.ae_title"] == ("OPENTRIAGE", "default")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[receive]\nprot = 104\n", "receive.prot: there is no such setting"),
        ("[receive]\nport = 70000\n", "receive.port"),
        ('[receive]\nae_title = "SEVENTEEN_LETTERS"\n', "receive.ae_title"),
        ('[receive]\nae_title = "  "\n', "receive.ae_title"),
        ('[receive]\nallowed_networks = ["10.0.0.0/99"]\n', "receive.allowed_networks"),
        ('[receive]\nprivate_sop_classes = ["1.02.3"]\n', "receive.private_sop_classes"),
        ("[decide]\nhigh_probability = 80\n", "decide.high_probability"),
        ("[study\n", "not valid TOML"),
        (
            "[study]\ncomplete_after_min_s = 200\n",
            "complete_after_max_s = 120 (the default) is less than complete_after_min_s = 200: set "
            "complete_after_max_s higher too",
        ),
        (
            "[study]\ncomplete_after_s = 25\ncomplete_limit_s = 60\n",
            "complete_limit_s = 60 is less than complete_after_max_s = 120 (the default): set "
            "complete_after_max_s lower too",
        ),
        ('[study]\ncount_at = "pacs"\n', "study.count_at is 'pacs', and no destination has that name"),
        (
            '[[destinations]]\nae_title = "P"\nhost = "h"\nport = 1\n'
            '[[destinations]]\nae_title = "P"\nhost = "h"\nport = 1\n',
            "two destinations",
        ),
        (
            '[[commitment_requestors]]\nae_title = "CT1"\nhost = "h"\nport = 1\n',
            "commitment_requestors.0.retention_days: Field required",
        ),
        (
            '[[commitment_requestors]]\nae_title = "CT1"\nhost = "h"\nport = 1\nretention_days = 30\n'
            '[[commitment_requestors]]\nae_title = "CT1 "\nhost = "i"\nport = 1\nretention_days = 30\n',
            "same AE title",
        ),
    ],
)
def test_a_wrong_setting_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"site\.toml") as caught:
        load_settings(written(tmp_path, text))
    assert said in str(caught.value)


PACS = 'ae_title = "PACS"\nhost = "h"\nport = 1\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[receive]\nae_title = "A\\\\B"\n', "for example 'MAIN_PACS' (given: 'A\\\\B')"),
        (f"[[destinations]]\n{PACS.replace('PACS', 'PÄCS')}", "characters of ASCII, no backslash"),
        ('[receive]\nallowed_calling_ae_titles = ["CT\\u0001"]\n', "no control character"),
        ('[receive]\nprivate_sop_classes = ["1.02.3"]\n', "for example '1.2.840.10008.1.1' (given: '1.02.3')"),
        (f'[[destinations]]\n{PACS}name = "a/b"\n', "for example 'main PACS' (given: 'a/b')"),
        ('[[adapters]]\nkind = "hl7"\nname = ""\nhost = "h"\nport = 1\n', "at least 1 character"),
        ('[[adapters]]\nkind = "ups"\nname = "u"\nurl = "ris/ups"\n', "for example 'https://ris.example/ups'"),
    ],
)
def test_what_is_wanted_is_said_in_words_with_an_example(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings(written(tmp_path, text))
    assert said in str(raised.value)
    assert "pattern" not in str(raised.value)
    assert "^" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        '[node]\ndatabase_url = "postgresql+psycopg://ot:SECRET@db/ot"\n[retention]\nimages_days = 0.1\n',
        '[node]\ndatabase_url = ["SECRET"]\n',
        '[[adapters]]\nkind = "ups"\nname = "u"\nurl = "ftp://u:SECRET@h/ups"\n',
    ],
)
def test_no_refusal_shows_a_password_or_a_whole_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings(written(tmp_path, text))
    assert "SECRET" not in str(raised.value)
    assert "{" not in str(raised.value)


def test_every_pattern_of_the_settings_has_its_words() -> None:
    def patterns(part: object) -> Iterator[str]:
        if isinstance(part, dict):
            yield from (value for key, value in part.items() if key == "pattern" and isinstance(value, str))
            part = list(part.values())
        if isinstance(part, list):
            for inner in part:
                yield from patterns(inner)

    found = set(patterns(Settings.model_json_schema()))
    assert len(found) >= 5
    assert found <= set(WANTED)


def test_a_missing_file_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: No such file"):
        load_settings(tmp_path / "absent.toml")


def test_settings_cannot_change_after_the_start() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().receive.port = 1  # type: ignore[misc]


def test_the_results_hash_moves_with_what_changes_a_result_and_with_nothing_else(tmp_path: Path) -> None:
    port = load_settings(written(tmp_path, "[receive]\nport = 104\n"))
    threshold = load_settings(written(tmp_path, "[decide]\nhigh_probability = 0.7\n"))
    assert port.results_hash == Settings().results_hash != threshold.results_hash


def test_the_example_for_a_site_loads_sends_nothing_and_is_in_the_wheel() -> None:
    site = load_settings(SITE_FILE)
    assert site.node.mode == "shadow"
    assert site.destinations
    assert site.receive.allowed_calling_ae_titles
    assert site.receive.allowed_networks
    packaged = tomllib.loads((SITE_FILE.parents[1] / "pyproject.toml").read_text())
    assert SITE_FILE.name in packaged["tool"]["setuptools"]["package-data"]["config"]


def test_every_other_character_of_the_default_repertoire_may_stand_in_an_ae_title(tmp_path: Path) -> None:
    for start in range(0x20, 0x7F, 15):
        title = "A" + "".join(map(chr, range(start, min(start + 15, 0x7F)))).replace("\\", "")
        path = written(tmp_path, f"[receive]\nae_title = {json.dumps(title)}\n")
        assert load_settings(path).receive.ae_title == title


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n[receive]\nprot = 104\n", ", line 3: receive.prot: there is no such setting; did you mean receive.port?"),
        (
            '[[destination]]\nhost = "h"\n',
            ", line 1: destination: there is no such setting; did you mean destinations?",
        ),
        (
            '[[destinations]]\nae_title = "A"\nhots = "h"\nport = 1\n'
            '[[destinations]]\nae_title = "B"\nhots = "h"\nport = 1\n',
            ", line 7: destinations.1.hots: there is no such setting; did you mean destinations.host?",
        ),
        ("[receive]\ntls.enable = true\n", ": receive.tls.enable: there is no such setting; did you mean "),
        (
            '[[adapters]]\nkind = "hl7"\nhost = "h"\nprot = 1\n',
            ", line 4: adapters.0.hl7.prot: there is no such setting; did you mean adapters.port?",
        ),
    ],
)
def test_a_setting_that_does_not_exist_is_found_in_the_file_and_the_nearest_is_named(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(written(tmp_path, text))
    assert said in str(caught.value)


def test_what_is_like_no_setting_gets_no_advice(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"line 2: receive\.xyzzy: there is no such setting$"):
        load_settings(written(tmp_path, "[receive]\nxyzzy = 1\n"))
