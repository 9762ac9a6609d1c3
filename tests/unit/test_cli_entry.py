"""Every command line ends in a result, or in one clear line and the right exit code."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mi_crow.cli import main
from mi_crow.cli.entry import COMMANDS, parse
from mi_crow.errors import nearest
from mi_crow.jobs.kinds import KINDS
from mi_crow.store.settings import UserSettings
from mi_crow.store.workspace import Workspace
from tests.helpers.jobs_fixture import STATES, FakeJobs


@pytest.fixture
def jobs(jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch) -> FakeJobs:
    monkeypatch.setenv("MI_CROW_WORKSPACE", str(jobs.workspace.root))
    return jobs


class Run:
    """One command line, run in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = main(arguments)
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err

    def json(self, *arguments: str) -> Any:
        code, out, err = self(*arguments, "--json")
        assert (code, err) == (0, "")
        return json.loads(out)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(capsys)


def test_a_hint_has_the_names_most_alike_first_and_counts_the_rest() -> None:
    assert nearest("wave", ["pony", "toy", "waves"]) == "waves, pony, toy"
    assert nearest("wave", ["q", "toy", "waves", "pony", "kit"]) == "waves, q, toy and 2 more"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: mi-crow {command}" in shown
    assert [line for line in shown.splitlines() if len(line) > 80] == []


def test_common_options_stand_before_or_after_the_command() -> None:
    for line in (
        ["--workspace", "W", "--json", "jobs", "log", "J"],
        ["jobs", "--workspace", "W", "log", "J", "--json"],
        ["jobs", "log", "--json", "--workspace", "W", "J"],
        ["--json", "jobs", "log", "J", "--workspace", "W"],
    ):
        options = parse(line)
        assert (options.workspace, options.json, options.debug) == ("W", True, False)
        assert (options.command, options.action, options.job) == ("jobs", "log", "J")


def test_a_workspace_may_be_called_like_a_command() -> None:
    options = parse(["--workspace", "train", "runs"])
    assert (options.workspace, options.command) == ("train", "runs")
    assert parse(["--workspace", "train"]).command is None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (["trian"], "command 'trian' is not known; did you mean train?"),
        (["--workspace", "w", "trian"], "command 'trian' is not known"),
        (["/"], "'/' is a folder, not a command; mi-crow --workspace / opens it"),
        (["-w", "/"], "'/' is a folder, not a command"),
        (["--wrong"], "unrecognized arguments: --wrong; see mi-crow --help"),
        (["--sae", "X"], "--sae goes after a command; mi-crow features --sae X, or another"),
        (["--device", "cpu", "--sae", "a b"], "; mi-crow steer --device cpu --sae 'a b', or"),
        (["--fresh", "--steps", "3"], "mi-crow train --steps 3, or another command that takes it"),
        (["--json", "--sae=X", "runs"], "unrecognized arguments: --sae=X"),
        (["--sae", "X", "feature", "3"], "; mi-crow feature --sae X 3\n"),
        (["--sae", "X", "trian"], "command 'trian' is not known; did you mean train?"),
        (["steer", "x", "--wrong", "5"], "--wrong 5; see mi-crow steer --help"),
        (["steer", "evaluate", "--wrong"], "see mi-crow steer evaluate --help"),
        (["train"], "--run --stream is required"),
        (["train", "--run", "r", "--k", "0"], "0 is less than 1"),
        (["train", "--run", "r", "--k", "many"], "'many' is not a whole number"),
        (["train", "--run", "r", "--steps", "3", "--epochs", "2"], "not allowed with"),
        (["feature", "x"], "'x' is not a whole number"),
        ([], "the app needs a terminal"),
    ],
)
def test_a_wrong_line_gets_one_sentence_and_2(run: Run, line: list[str], says: str) -> None:
    code, out, err = run(*line)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


def test_errors_are_objects_with_json_wherever_it_stands(run: Run) -> None:
    for line in (["--json", "trian"], ["jobs", "--json", "--workspace", "/no/where"]):
        code, out, err = run(*line)
        assert (code, out) == (2, "")
        assert json.loads(err).keys() == {"error", "hint"}


def test_debug_adds_the_traceback(run: Run) -> None:
    _, _, err = run("jobs", "--workspace", "/no/where", "--debug")
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("no workspace at")


def test_a_fault_of_ours_is_one_line_and_1(
    run: Run, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(workspace: Workspace) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("mi_crow.cli.commands.jobs.scan_jobs", broken)
    code, _, err = run("jobs")
    assert code == 1
    assert err == "ZeroDivisionError: oops; this is a bug in mi-crow; --debug shows the traceback\n"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (errno.ENOSPC, "the disk of '/data/x' is full; free some space there\n"),
        (
            errno.EDQUOT,
            "the disk quota for '/data/x' is used up; free some space or ask for more\n",
        ),
    ],
)
def test_a_full_disk_or_quota_is_named(
    run: Run, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch, code: int, told: str
) -> None:
    def full(workspace: Workspace) -> None:
        raise OSError(code, os.strerror(code), "/data/x")

    monkeypatch.setattr("mi_crow.cli.commands.jobs.scan_jobs", full)
    assert run("jobs") == (1, "", told)


def test_an_error_cannot_smuggle_control_characters(run: Run) -> None:
    _, _, err = run("jobs", "--workspace", "/no/\x1b[31mwhere\n")
    assert "\x1b" not in err
    assert err.count("\n") == 1


def test_jobs_lists_every_state(run: Run, jobs: FakeJobs) -> None:
    ids = {jobs.add(status, created=float(i)): status for i, status in enumerate(STATES)}
    rows = run.json("jobs")
    assert {row["job_id"]: row["status"] for row in rows} == ids
    wanted = {"job_id", "kind", "status", "done", "total", "unit", "rate", "eta_s", "error"}
    assert all(wanted <= row.keys() for row in rows)
    _, out, _ = run("jobs")
    for job, status in ids.items():
        [line] = [line for line in out.splitlines() if line.split()[0] == job]
        assert status in line


def test_a_job_that_is_named_or_the_only_one_meant_is_shown(run: Run, jobs: FakeJobs) -> None:
    first = jobs.add("failed", created=1.0, log="one\ntwo\n")
    assert run("jobs", "log", first) == (0, "one\ntwo\n", "")
    assert run.json("jobs", "log", "--lines", "1")["lines"] == ["two"]
    assert run.json("jobs", "show", first)["error"] == "the device ran out of memory"
    code, _, err = run("jobs", "cancel")
    assert (code, err.startswith("there is no job to cancel")) == (2, True)


def test_cancel_says_what_happens(run: Run, jobs: FakeJobs) -> None:
    job = jobs.add("running")
    assert "saves and stops" in run("jobs", "cancel", job)[1]
    assert "is stopping now" in run("jobs", "cancel")[1]
    jobs.add("running")
    assert "2 jobs qualify" in run("jobs", "cancel")[2]


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        ("finished", 0, "mi-crow features --sae s"),
        ("failed", 1, "the device ran out of memory; use a smaller --batch-size"),
        ("cancelled", 130, "was cancelled"),
        ("lost", 1, "is lost"),
    ],
)
def test_watch_ends_as_the_job_did(
    run: Run, jobs: FakeJobs, status: str, code: int, says: str
) -> None:
    result = {"sae_id": "s", "features": 8, "tokens": 9, "bytes": 1, "seconds": 1.0}
    found, out, err = run("jobs", "watch", jobs.add(status, "index", result=result))
    assert found == code
    assert says in out + err


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_job_of_every_kind_shows_what_it_made(run: Run, jobs: FakeJobs, kind: str) -> None:
    code, out, _ = run("jobs", "watch", jobs.add("finished", kind, result={"of another": "form"}))
    assert code == 0
    assert "another" in out


def test_explanations_are_shown_as_their_command_shows_them(run: Run, jobs: FakeJobs) -> None:
    result = {"sae_id": "s", "explained": 2, "features": 3, "explainer": "m", "in_few_texts": 0}
    result |= {"untrained": {"detection": None}, "seconds": 1.0}
    found = run("jobs", "watch", jobs.add("finished", "explanations", result=result))
    assert "2 of 3 features, by m" in found[1]


def test_config_is_typed_and_used(run: Run, tmp_path: Path) -> None:
    assert not any(run.json("config").values())
    assert run("config", "set", "device", "cuda:1")[:2] == (0, "cuda:1\n")
    assert UserSettings.load().text("device") == "cuda:1"
    assert run("config", "get", "device")[1] == "cuda:1\n"
    assert run("config", "set", "device", "tpu")[0] == 2
    assert run("config", "set", "colour", "red")[0] == 2
    assert Path(run("config", "path")[1].strip()).is_file()
    run("config", "set", "workspace", str(tmp_path / "mine"))
    assert str(tmp_path / "mine") in run("runs")[2]
    Path(run("config", "path")[1].strip()).write_text("{")
    code, _, err = run("runs")
    assert code == 1
    assert "config.toml, line 1 is not TOML" in err


HEAVY = ("torch", "transformers", "datasets", "textual", "numpy")
INDEX = ("duckdb", "polars", "pyarrow")
LIGHT = [
    (["--version"], (*HEAVY, *INDEX, "rich")),
    (["--help"], (*HEAVY, *INDEX, "rich")),
    (["jobs"], (*HEAVY, *INDEX)),
    (["runs"], (*HEAVY, *INDEX)),
    (["saes"], (*HEAVY, *INDEX)),
    (["config"], (*HEAVY, *INDEX)),
]


@pytest.mark.parametrize(("line", "absent"), LIGHT, ids=lambda value: " ".join(value[:1]))
def test_light_commands_import_nothing_heavy(
    jobs: FakeJobs, line: list[str], absent: tuple[str, ...]
) -> None:
    probe = (
        "import sys\nfrom mi_crow.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        f"found = [name for name in {absent!r} if name in sys.modules]\n"
        "sys.exit(f'imported {found}' if found else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, *line],
        capture_output=True,
        text=True,
        env=os.environ,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mi_crow", "--version"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.startswith("mi-crow ")
