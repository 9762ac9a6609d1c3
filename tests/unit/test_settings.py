"""The config file: comments survive, mistakes name their line, a damaged file changes nothing."""

import json
import os
from pathlib import Path

import pytest

from mi_crow.cli import main
from mi_crow.errors import CorruptDataError, UserError
from mi_crow.store.settings import UserSettings
from mi_crow.store.settings_file import NEW_FILE, changed, settings_path

COMMENTED = """\
# mine
device = "cpu"  # the GPU is Anna's

[keys]
# as in less
runs.log = ["f5"]
"""


def write(text: str) -> Path:
    path = settings_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_change_keeps_every_comment_and_the_order() -> None:
    text = changed(COMMENTED, "device", "cuda:1")
    assert text == COMMENTED.replace('"cpu"', '"cuda:1"')
    text = changed(text, "keys.runs.log", ["f6"])
    assert '["f6"]' in text
    assert "# as in less" in text


@pytest.mark.parametrize("start", ["", NEW_FILE, COMMENTED, 'keys."app.help" = "f1"\n'])
@pytest.mark.parametrize(
    ("name", "value"),
    [("theme", "paper"), ("keys.app.quit", ["f10"]), ("llm.url", "http://x/v1")],
)
def test_what_is_set_is_read_back_and_unset_again(start: str, name: str, value) -> None:
    write(start)
    before = dict(UserSettings.load().values)
    text = changed(start, name, value)
    write(text)
    found = UserSettings.load()
    assert found.values == before | {name: tuple(value) if isinstance(value, list) else value}
    write(changed(text, name, None))
    assert UserSettings.load().values == before


def test_the_new_file_sets_nothing_and_every_line_of_it_is_right_when_it_is_on() -> None:
    write(NEW_FILE)
    assert UserSettings.load().values == {}
    lines = NEW_FILE.splitlines()
    write("\n".join(line.removeprefix("# ") if " = " in line else line for line in lines))
    settings = UserSettings.load()
    assert not settings.troubles
    assert len(settings.values) == 9


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('theme = "crow"\ndevice = "tpu"\n', "line 2: device 'tpu' is not known"),
        ("device = 3\n", "line 1: device must be a text"),
        ('\n[heat]\ndark = ["red", "#ffffff"]\n', "line 3: heat.dark: 'red' is not a colour"),
        ('[llm]\nkey = "abc"\n', "line 2: llm.key is not read from a file"),
        ('llm.url = "http://me:secret@host/"\n', "line 1: llm.url must not contain a password"),
        ('colour = "red"\n', "line 1: setting 'colour' is not known"),
        ("[keys]\nruns.log = 5\n", "line 2: keys.runs.log must be a list"),
    ],
)
def test_a_mistake_names_its_line_and_costs_one_setting(text: str, says: str) -> None:
    write(text + '\n[columns]\nfeatures = ["feature"]\n')
    settings = UserSettings.load()
    (trouble,) = settings.troubles.values()
    assert says in trouble
    assert "secret" not in trouble
    assert settings.texts("columns.features") == ("feature",)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'theme = "crow"\nkeys = [\n[', "line 3 is not TOML"),
        (b'device = "cpu"\nname = "\xff"\n', "line 2 is not UTF-8"),
        (b'device = "cpu"\ndevice = "cpu"\n', "line 2 is not TOML"),
        (b"[" * 100_000, "is not TOML"),
    ],
)
def test_a_damaged_file_names_its_line_and_is_left_as_it_is(
    data: bytes, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write("")
    path.write_bytes(data)
    with pytest.raises(CorruptDataError, match=says):
        UserSettings.load()
    assert main(["config", "set", "device", "cpu"]) == 1
    assert says in capsys.readouterr().err
    assert path.read_bytes() == data


def test_an_earlier_versions_file_is_read_once_and_moved() -> None:
    old = settings_path().with_name("config.json")
    old.parent.mkdir(parents=True, exist_ok=True)
    old.write_text(json.dumps({"workspace": "/some/where", "device": "cpu"}))
    assert UserSettings.load().values == {"workspace": "/some/where", "device": "cpu"}
    assert not old.exists()
    assert json.loads(old.with_name("config.json.old").read_text())["device"] == "cpu"
    assert UserSettings.load().text("device") == "cpu"


def test_a_link_to_the_file_stays_a_link(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.toml"
    real.write_text("# mine\n")
    settings_path().parent.mkdir(parents=True, exist_ok=True)
    settings_path().symlink_to(real)
    assert main(["config", "set", "device", "cpu"]) == 0
    assert settings_path().is_symlink()
    assert 'device = "cpu"' in real.read_text()


def test_what_cannot_be_changed_without_loss_is_refused() -> None:
    with pytest.raises(UserError, match="cannot be changed here"):
        changed('keys = "none"\n', "keys.app.help", ["f1"])


# `config edit`.


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes an editor that writes a text into the file it is given."""

    def make(text: str) -> None:
        script, new = tmp_path / "editor", tmp_path / "new"
        new.write_text(text)
        script.write_text(f'#!/bin/sh\ncat "{new}" > "$1"\n')
        script.chmod(0o755)
        monkeypatch.delenv("VISUAL", raising=False)
        monkeypatch.setenv("EDITOR", str(script))

    return make


def test_what_was_edited_takes_its_place_when_it_is_right(editor, capsys) -> None:
    path = write(COMMENTED)
    editor('theme = "paper" # by day\n')
    assert main(["config", "edit"]) == 0
    assert path.read_text() == 'theme = "paper" # by day\n'
    assert main(["config", "edit"]) == 0
    assert "nothing is changed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("theme = \n", "line 1 is not TOML"),
        ('theme = "papr"\n', "line 1: theme 'papr' is not known; there is paper"),
        ('[keys]\n"runs.log" = "c"\n', "line 2: runs.log cannot be c, the key of runs.cancel"),
        ('[columns]\nfeatures = ["wide"]\n', "line 2: 'wide' is not a column"),
    ],
)
def test_a_mistake_is_never_put_in_place_and_what_was_written_is_kept(
    editor, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    path = write(COMMENTED)
    editor(text)
    assert main(["config", "edit"]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert path.read_text() == COMMENTED
    kept = path.with_name("config.toml.rejected")
    assert kept.read_text() == text
    assert str(kept) in error
    assert sorted(os.listdir(path.parent)) == ["config.toml", "config.toml.rejected"]


def test_without_an_editor_that_works_nothing_changes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    for command, says in (("false", "exit code 1"), ("/no/editor", "cannot be started")):
        monkeypatch.setenv("EDITOR", command)
        assert main(["config", "edit"]) == 2
        assert says in capsys.readouterr().err
    assert not settings_path().exists()


def test_keys_are_listed_with_the_users_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "set", "keys.runs.log", "f5,f6"]) == 0
    assert main(["config", "set", "keys.runs.note", "none"]) == 0
    capsys.readouterr()
    assert main(["config", "keys", "--json"]) == 0
    rows = {row["action"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["runs.log"]["keys"] == ["f5", "f6"]
    assert rows["runs.note"]["keys"] == []
    assert not rows["app.help"]["changed"]
    assert main(["config", "set", "keys.runs.cancel", "f5"]) == 2
    assert "runs.cancel cannot be f5, the key of runs.log" in capsys.readouterr().err


def test_doctor_says_where_names_are_asked_for_but_not_the_key(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mi_crow.cli.doctor_checks import _settings

    monkeypatch.setenv("MI_CROW_LLM_KEY", "sk-secret")
    write('[llm]\nurl = "http://localhost:8000/v1"\nmodel = "small"\n')
    (result,) = _settings()
    assert result.found == "http://localhost:8000/v1, model small, MI_CROW_LLM_KEY is set"
