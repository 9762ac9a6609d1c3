"""Several processes tag one workspace: nothing is lost, and an open app says who tagged what."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.store.workspace import Workspace
from tests.helpers.pseudo_terminal import PROGRAM, PseudoTerminal

pytestmark = pytest.mark.slow

_TAGGER = """
import sys
from mi_crow.mechanistic.concepts.annotations import Annotations
path, number, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
annotations = Annotations(path, actor=f"tagger {number}")
for feature in range(count):
    annotations.set_concept("s", feature, f"name {number}")
"""


def test_four_processes_lose_no_tag(tmp_path: Path) -> None:
    path = Workspace.open(tmp_path / "w").annotations_path
    taggers = [
        subprocess.Popen([sys.executable, "-c", _TAGGER, str(path), str(number), "500"])
        for number in range(4)
    ]
    assert [one.wait(timeout=120) for one in taggers] == [0] * 4
    annotations = Annotations(path)
    found = {(one.feature, one.name) for one in annotations.concepts("s")}
    assert found == {(f, f"name {n}") for f in range(500) for n in range(4)}
    changes = annotations.past_changes(limit=5000)
    assert len(changes) == 2000  # each its own, none merged with another's
    assert {one.actor for one in changes} == {f"tagger {number}" for number in range(4)}


def test_two_apps_see_what_a_command_line_tags(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "w")
    Annotations(workspace.annotations_path).set_concept("s", 1, "first")
    command = [*PROGRAM, "--workspace", str(workspace.root), "--fresh"]
    with (
        PseudoTerminal(command, columns=100, rows=30) as one,
        PseudoTerminal(command, columns=100, rows=30) as other,
    ):
        for app in (one, other):
            app.wait_for("mi-crow")
            app.settle(1.5)  # it has looked once
        other_user = {**os.environ, "LOGNAME": "ada"}
        begun = time.monotonic()
        subprocess.run(
            [sys.executable, "-c", _TAGGER, str(workspace.annotations_path), "7", "1"],
            check=True,
            env=other_user,
            timeout=60,
        )
        for app in (one, other):
            app.wait_for("tagger 7")
            app.wait_for("name 7")
        assert time.monotonic() - begun < 30  # the look is once a second
