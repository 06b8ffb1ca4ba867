"""The command line says what is wrong, in words, and with the promised exit status."""

import json
import re
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from config import load_settings, origins
from ledger.errors import LedgerUnavailable
from ledger.ledger import Ledger
from ledger.records import Stage
from node.cli import COMMANDS, app, main
from node.console import out
from node.trying.sending import Peer
from node.wiring import open_ledger
from tests.support import ledgers
from tests.support.dx import make_dx, write
from tests.support.helps import eaten
from tests.support.packages import tiny_model, write_package
from tests.support.peers import free_port

runner = CliRunner()


def settings_file(folder: Path, extra: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "site.toml"
    path.write_text(f"[node]\nstate_dir = {json.dumps(str(folder / 'state'))}\n{extra}", encoding="utf-8")
    return path


def test_help_names_every_command() -> None:
    text = runner.invoke(app, ["--help"]).output
    assert all(name in text for name in COMMANDS)


@pytest.mark.parametrize("command", [*COMMANDS])
def test_every_command_explains_itself(command: str) -> None:
    result = runner.invoke(app, [command, "--help"])
    assert result.exit_code == 0, result.output
    assert len(result.output) > 200
    assert [*eaten(get_command(app).get_command(None, command))] == []  # type: ignore[attr-defined]


def test_version() -> None:
    assert runner.invoke(app, ["--version"]).output.startswith("opentriage ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["serve", "--role", "nonsense"],
        ["send", "nowhere.dcm", "--to", "PACS@localhost:104"],
        ["send", __file__, "--to", "PACS"],
        ["send", __file__],
        ["analyse"],
        ["analyse", "nowhere.dcm"],
        ["analyse", __file__, "--as", "chest-ct"],
        ["analyse", __file__, "--age", "3"],
        ["demo", "nowhere.dcm"],
        ["explain"],
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    assert runner.invoke(app, arguments).exit_code == 2


def test_a_misspelt_setting_is_named_and_ends_with_2(tmp_path: Path) -> None:
    result = runner.invoke(app, ["check-config", "--config", str(settings_file(tmp_path, "stat_dir = '/x'\n"))])
    assert result.exit_code == 2
    assert "node.stat_dir" in result.output


def test_check_config_tells_values_from_defaults_and_hides_a_password(tmp_path: Path) -> None:
    given = settings_file(tmp_path, 'database_url = "postgresql+psycopg://node:secret@db/opentriage"\n')
    result = runner.invoke(app, ["check-config", "-c", str(given)], env={"COLUMNS": "300"})
    assert result.exit_code == 0, result.output
    assert "secret" not in result.output
    assert "…@db/opentriage" in result.output
    line = next(line for line in result.output.splitlines() if line.startswith("study.complete_after_s"))
    assert line.split() == ["study.complete_after_s", "20.0", "default"]
    line = next(line for line in result.output.splitlines() if line.startswith("audit.heads_file"))
    assert line.split() == ["audit.heads_file", "not", "set", "default"]  # a dot would be this folder


def test_check_config_breaks_no_key_in_a_narrow_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out, "_width", 80)
    given = settings_file(tmp_path, "")
    shown = runner.invoke(app, ["check-config", "-c", str(given)]).stdout
    keys = {key for key, *_ in origins(load_settings(given), given)}
    assert keys <= {line.split()[0] for line in shown.splitlines() if line.split()}


OHIF = "[[destinations]]\nae_title = 'PACS'\nhost = 'pacs'\nport = 104\nprofile = 'ohif'\n"


@pytest.mark.parametrize(
    ("extra", "warned"),
    [
        ("", "destinations: none"),
        ("", "anybody on the network may send"),
        ("", "receive.tls: off"),
        ("[web]\nhost = '0.0.0.0'\ninsecure_plaintext = true\n", "web.host"),
        ("[look]\nunknown_age = 'accept'\n", "unknown_age"),
        ("[decide]\ncritical_priority = 'MEDIUM'\n", "nothing ever becomes HIGH"),
        ("[receive]\nallowed_networks = ['10.0.0.0/8']\n", "leaves out the node itself"),
        ("[receive]\nrequire_called_ae_title = false\n", "require_called_ae_title"),
        ("[look]\nmodels = ['chest-pneumonia']\n[report]\nlocalization = 'box'\n", "no package in use draws boxes"),
        ("[report]\nacr_categories = {critical = 1}\n", "critical is never written"),
        ("[recommend.present]\nfracture = 'Not normal.'\n", "recommend.present.fracture: no reader may see"),
        (f"{OHIF}presentation_state = true\n", "PACS@pacs:104: presentation_state is not sent"),
        (OHIF, "PACS@pacs:104: ohif gets measurements with boxes only"),
    ],
)
def test_risky_choices_are_warned_of(tmp_path: Path, extra: str, warned: str) -> None:
    result = runner.invoke(app, ["check-config", "-c", str(settings_file(tmp_path, extra))], env={"COLUMNS": "300"})
    assert warned in result.output


def test_tls_files_that_cannot_be_used_are_errors(tmp_path: Path) -> None:
    extra = "[receive.tls]\nenabled = true\ncertificate_file = '/c.pem'\nkey_file = '/k.pem'\nca_file = '/ca.pem'\n"
    result = runner.invoke(app, ["check-config", "-c", str(settings_file(tmp_path, extra))], env={"COLUMNS": "300"})
    assert result.exit_code == 1
    assert "error: receive.tls.certificate_file: /c.pem cannot be read" in result.output


def test_boxes_that_a_package_draws_need_no_warning(tmp_path: Path) -> None:
    given = settings_file(tmp_path, "[look]\nmodels = ['limb-fracture']\n[report]\nlocalization = 'box'\n")
    result = runner.invoke(app, ["check-config", "-c", str(given)], env={"COLUMNS": "300"})
    assert "draws boxes" not in result.output


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_there_is_said_before_the_start_with_its_cure(tmp_path: Path, provider: str) -> None:
    config = settings_file(tmp_path, f"[look]\nprovider = '{provider}'\n")
    result = runner.invoke(app, ["check-config", "-c", str(config)], env={"COLUMNS": "300"})
    assert f"error: look: the node will not start: look.provider is {provider}, but here there is" in result.output
    assert result.exit_code == 1
    assert "requirements/gpu.txt" in result.output


@pytest.mark.parametrize("command", [["worklist"], ["explain", "1.2.3"]])
def test_a_ledger_that_takes_no_word_of_the_look_is_one_sentence_and_no_fault_of_the_program(
    tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings_file(tmp_path)
    open_ledger(load_settings(config)).close()

    def read_only(self: Ledger, *events: object) -> None:
        raise LedgerUnavailable("the ledger refused a transaction: OperationalError (SQLITE_READONLY)")

    monkeypatch.setattr(Ledger, "audit", read_only)
    monkeypatch.setattr("sys.argv", ["opentriage", *command, "-c", str(config)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (1, "")
    assert said.err == (
        "this look cannot be written to the audit trail, so nothing is shown: the ledger refused a transaction: "
        "OperationalError (SQLITE_READONLY); see docs/runbooks/ledger-unavailable.md\n"
    )


def models_file(tmp_path: Path, *models: str) -> Path:
    """Settings over a good package, one whose model returns no numbers, and one whose manifest is no manifest."""
    root = tmp_path / "models"
    write_package(root, "good")
    write_package(root, "nan", model=tiny_model(scores="nan"))
    (write_package(root, "torn") / "manifest.json").write_text("{")
    return settings_file(tmp_path, f"[look]\nmodels_dir = {json.dumps(str(root))}\nmodels = {json.dumps(models)}\n")


def test_a_folder_without_a_package_is_not_listed_in_silence(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    config = settings_file(tmp_path, f"[look]\nmodels_dir = {json.dumps(str(tmp_path / 'models'))}\n")
    listed = runner.invoke(app, ["models", "list", "-c", str(config)])
    assert (listed.exit_code, "no model is installed" in listed.stderr) == (1, True)
    checked = runner.invoke(app, ["check-config", "-c", str(config)], env={"COLUMNS": "400"})
    assert (checked.exit_code, "warning: look: no model is installed" in checked.stderr) == (0, True)


def test_models_list_names_what_is_refused_beside_the_rest_and_ends_with_1(tmp_path: Path) -> None:
    result = runner.invoke(app, ["models", "list", "-c", str(models_file(tmp_path))])
    assert result.exit_code == 1
    assert any(line.startswith("good ") for line in result.stdout.splitlines())
    assert not any(name in result.stdout for name in ("nan ", "torn "))
    assert re.search(r"the model package nan 1\.0\.0 is refused: .*model\.onnx: .*not finite", result.stderr)
    assert re.search(r"the model package torn 1\.0\.0 is refused: .*manifest\.json", result.stderr)


def test_check_config_says_which_package_is_refused_and_when_that_stops_the_start(tmp_path: Path) -> None:
    wide = {"COLUMNS": "400"}
    free = runner.invoke(app, ["check-config", "-c", str(models_file(tmp_path))], env=wide)
    assert "warning: look: the model package nan 1.0.0 is refused" in free.stderr
    assert "the node will not start" not in free.stderr
    assert free.exit_code == 0
    config = models_file(tmp_path / "named", "good", "nan")
    named = runner.invoke(app, ["check-config", "-c", str(config)], env=wide)
    said = "error: look: the node will not start: look.models names 'nan', but the model package nan 1.0.0 is refused"
    assert said in named.stderr
    assert named.exit_code == 1


MISSPELT = """
[decide]
critical_findings = ["pneumonai", "pneumothorax"]
[decide.thresholds]
pneumonai = 0.62
[recommend.present]
xyz = "Look again."
"""


def test_check_config_names_each_finding_that_no_model_finds_and_the_one_that_was_meant(tmp_path: Path) -> None:
    """Its threshold would be ignored, and no study of it would ever be HIGH."""
    write_package(tmp_path / "models", "good")
    look = f"[look]\nmodels_dir = {json.dumps(str(tmp_path / 'models'))}\n"
    result = runner.invoke(app, ["check-config", "-c", str(settings_file(tmp_path, look + MISSPELT))])
    said = " ".join(result.stderr.split())
    near = "no installed model finds 'pneumonai'; did you mean 'pneumonia'? (they find: pneumonia)"
    assert f"warning: decide.critical_findings: {near}" in said
    assert f"warning: decide.thresholds: {near}" in said
    assert "warning: recommend.present: no installed model finds 'xyz' (they find: pneumonia)" in said
    assert "no installed model finds any of them, so no study becomes HIGH" in said
    assert "finds 'pneumothorax'" not in said  # as shipped
    right = runner.invoke(app, ["check-config", "-c", str(settings_file(tmp_path, look))])
    assert "no installed model finds" not in right.stderr


def test_check_config_ends_with_1_when_look_models_names_what_is_not_there(tmp_path: Path) -> None:
    config = models_file(tmp_path, "good", "absent")
    result = runner.invoke(app, ["check-config", "-c", str(config)], env={"COLUMNS": "400"})
    assert "error: look: the node will not start: look.models names 'absent'" in result.stderr
    assert result.exit_code == 1


def test_analyse_says_what_is_refused_and_looks_with_the_rest(tmp_path: Path) -> None:
    path = write(make_dx(), tmp_path / "a.dcm")
    result = runner.invoke(app, ["analyse", "--json", str(path), "-c", str(models_file(tmp_path))])
    lines = {line["model"]: line for line in map(json.loads, result.stdout.splitlines())}
    assert {model: line["status"] for model, line in lines.items()} == {"good": "analysed", "nan": "not_assessed"}
    assert lines["nan"]["reason"].startswith("Package refused: nan 1.0.0 ")
    assert "the model package torn 1.0.0 is refused" in result.stderr


def test_a_parked_job_is_listed_explained_and_released(tmp_path: Path) -> None:
    config = settings_file(tmp_path)
    from config import load_settings

    ledger = open_ledger(load_settings(config))
    received = ledgers.admit(ledger)
    (job,) = ledger.claim(Stage.ANALYSE, "test", 1, 60.0)
    ledger.park(job, "The decoder died three times.")
    ledger.close()
    listed = runner.invoke(app, ["release", "-c", str(config)])
    assert "The decoder died three times." in listed.output
    told = runner.invoke(app, ["explain", received.study_instance_uid, "-c", str(config)])
    assert "The decoder died three times." in told.output
    assert received.sop_instance_uid in told.output
    assert runner.invoke(app, ["release", str(job.job_id), "-c", str(config)]).exit_code == 0
    assert runner.invoke(app, ["release", str(job.job_id), "-c", str(config)]).exit_code == 1
    assert runner.invoke(app, ["explain", "1.2.3", "-c", str(config)]).exit_code == 1


def test_the_worklist_is_most_urgent_first_and_never_says_low(tmp_path: Path) -> None:
    from config import load_settings
    from ledger.records import TriagePriority

    config = settings_file(tmp_path)
    ledger = open_ledger(load_settings(config))
    for number, probability, priority in ((1, 0.1, TriagePriority.LOW), (2, 0.9, TriagePriority.HIGH)):
        ledgers.admit(ledger, number)
        (job,) = ledger.claim(Stage.ANALYSE, "test", 1, 60.0)
        ledger.finish_analysis(job, [ledgers.analysed(probability, priority)])
    ledger.close()
    lines = runner.invoke(app, ["worklist", "-c", str(config)], env={"COLUMNS": "200"}).output.splitlines()
    assert "HIGH" in lines[1]
    assert "2.25.3002" in lines[1]
    assert "no flagged finding; other disease was not looked for" in " ".join(lines)
    assert not any("LOW" in line.split() or "normal" in line.lower() for line in lines)
    objects = [
        json.loads(line) for line in runner.invoke(app, ["worklist", "--json", "-c", str(config)]).stdout.splitlines()
    ]
    assert [line["priority"] for line in objects] == ["HIGH", "LOW"]


@pytest.mark.parametrize("text", ["PACS", "PACS@host", "@host:104", "PACS@host:0", "PACS@host:x", "A" * 17 + "@h:104"])
def test_an_address_that_is_not_one_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        Peer.parse(text)


def test_send_to_nobody_says_so(tmp_path: Path) -> None:
    path = write(make_dx(), tmp_path / "a.dcm")
    result = runner.invoke(app, ["send", str(path), "--to", f"PACS@127.0.0.1:{free_port()}"])
    assert result.exit_code == 1
    assert "no connection to PACS@127.0.0.1" in result.output


def test_models_list_fits_a_terminal_and_says_ages_in_years(tmp_path: Path) -> None:
    write_package(tmp_path / "models", "chest-pneumonia")
    config = settings_file(tmp_path, f"[look]\nmodels_dir = {json.dumps(str(tmp_path / 'models'))}\n")
    result = runner.invoke(app, ["models", "list", "-c", str(config)], env={"COLUMNS": "80"})
    lines = result.output.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("chest-pneumonia ") for line in lines)
    assert re.search(r"1 to below 6 *\n? *years", result.output)
