"""What the command line prints of a hostile workspace: nothing that a terminal obeys."""

import json
from pathlib import Path

import pytest

from mi_crow.cli import main
from mi_crow.store.workspace import Workspace
from tests.helpers.awkward_index import FEATURE, SAE
from tests.helpers.hostile_workspace import (
    ATTACK,
    add_hostile_jobs,
    make_hostile_workspace,
    obeyed,
)
from tests.helpers.jobs_fixture import FakeJobs

COMMANDS = (
    ("runs",),
    ("saes",),
    ("saes", "show", SAE),
    ("features", "--sae", SAE, "--limit", "70"),
    ("features", "--sae", SAE, "--search", "PWNTITLE"),
    ("feature", "--sae", SAE, str(FEATURE)),
    ("concepts", "list", "--sae", SAE),
    ("jobs",),
    *((("jobs", "show", number)) for number in "0123"),
    *((("jobs", "log", number)) for number in "0123"),
    ("jobs", "watch", "0"),
    ("jobs", "watch", "3"),  # 1 runs on: nobody would see its end
    ("saes", "show", ATTACK.replace("\x00", "")),
    ("features", "--sae", SAE, "--sort", ATTACK),
    (ATTACK,),
    ("runs", "--nothing", ATTACK),
)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace.open(tmp_path / "workspace")
    make_hostile_workspace(workspace)
    add_hostile_jobs(FakeJobs(workspace))
    return workspace


@pytest.mark.slow
@pytest.mark.parametrize("extra", [(), ("--json",), ("--debug",)], ids=["plain", "json", "debug"])
def test_no_command_prints_what_a_terminal_obeys(
    workspace: Workspace, extra: tuple[str, ...], capsys: pytest.CaptureFixture[str]
):
    jobs = sorted(folder.name for folder in workspace.jobs_dir.iterdir())
    for command in COMMANDS:
        words = [jobs[int(w)] if command[0] == "jobs" and w.isdigit() else w for w in command]
        code = main([*words, "--workspace", str(workspace.root), *extra])
        told = capsys.readouterr()
        assert obeyed(told.out.replace("\t", "")) == [], command
        assert obeyed(told.err.replace("\t", "")) == [], command
        assert "a bug in mi-crow" not in told.err, (command, told.err)
        if extra == ("--json",) and code == 0 and told.out:
            json.loads(told.out)


def test_json_gives_the_data_as_they_are(workspace: Workspace, capsys: pytest.CaptureFixture[str]):
    main(["concepts", "list", "--sae", SAE, "--json", "--workspace", str(workspace.root)])
    names = [concept["name"] for concept in json.loads(capsys.readouterr().out)]
    assert f"name{ATTACK}" in names
