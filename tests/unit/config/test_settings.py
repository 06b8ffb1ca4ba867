from collections.abc import Iterator
from pathlib import Path

import pytest

from config import ConfigError, Settings, load_settings, origins
from config.load import DEFAULT_FILE
from config.wanted import WANTED


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(text)
    return path


def test_the_manual_states_exactly_the_defaults() -> None:
    assert load_settings(DEFAULT_FILE) == Settings()


def test_the_manual_names_every_setting() -> None:
    unnamed = {key for key, _, origin in origins(load_settings(DEFAULT_FILE), DEFAULT_FILE) if origin == "default"}
    assert unnamed == {"destinations", "adapters"}  # have no default to state; shown in comments


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
            '[[destinations]]\nae_title = "P"\nhost = "h"\nport = 1\n'
            '[[destinations]]\nae_title = "P"\nhost = "h"\nport = 1\n',
            "two destinations",
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
