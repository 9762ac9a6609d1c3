"""What a model does, in print: inspected texts, a profile of its blocks, the progress of a job."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mi_crow.cli import display
from mi_crow.errors import UserError
from mi_crow.mechanistic.vectors.stored import SteeringVector, save_vector
from mi_crow.store.workspace import Workspace
from tests.helpers.printed import Say, saying
from tests.helpers.session_fixture import add_tiny_sae
from tests.helpers.steering_fixture import TEXT, WIDTH


@pytest.fixture
def say(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Say:
    """What a command prints, each run of spaces as one."""
    return saying(workspace, monkeypatch, capsys, after=("--device", "cpu"))


@pytest.mark.slow
def test_each_sae_shows_what_fires_and_each_vector_where(
    workspace: Workspace, tiny_model_dir: Path, say: Say
) -> None:
    add_tiny_sae(workspace, tiny_model_dir, "tiny")
    direction = torch.arange(1.0, WIDTH + 1)
    save_vector(workspace, SteeringVector("up", {"resid_post.1": direction}))
    asked = ("inspect", TEXT, "--vector", "up", "--top", "3")
    found = json.loads(say(*asked, "--json"))
    shown = say(*asked)
    lines = shown.splitlines()
    rows = [line.split() for line in lines]
    features = [row[0] for row in rows if row and row[0].isdigit()]
    assert features == [str(one["feature"]) for one in found["features"]]
    total = found["tokens_total"]
    assert f"read {total} of {total} tokens, BOS prepended" in lines
    assert "explains" not in shown
    [row] = [row for row in rows if row[:2] == ["up", "resid_post.1"]]
    [lane] = found["vectors"]
    assert float(row[2]) == pytest.approx(lane["max_act"], rel=0.01)
    mean = sum(lane["acts"]) / len(lane["acts"])
    assert float(row[3]) == pytest.approx(mean, rel=0.01)
    add_tiny_sae(workspace, tiny_model_dir, "second")
    lines = say("inspect", TEXT, "--top", "3").splitlines()
    heads = [line for line in lines if line.startswith(("tiny at", "second at"))]
    assert {line.split(",")[0] for line in heads} == {
        "tiny at resid_post.1",
        "second at resid_post.1",
    }
    assert all(line.endswith("of an activation") for line in heads)
    wrong = ("inspect", TEXT, "--against", "Bread", "--sae", "tiny")
    told = say(*wrong, "--sae", "second", code=2)
    assert "two texts are compared by one SAE; give --sae once" in told
    told = say("inspect", TEXT, "Flour", "--against", "Bread", "Salt", "--windows", "--sae", "tiny",
               code=2)  # fmt: skip
    assert "--windows is for one or two texts; leave out --windows" in told


def test_a_profile_has_a_row_for_each_block(
    tiny_model_dir: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("layers", "--model", str(tiny_model_dir), "--profile")
    found = json.loads(say(*asked, TEXT, "--json"))
    monkeypatch.setattr("sys.stdin", io.StringIO(TEXT))
    lines = say(*asked, "-").splitlines()
    assert lines[0].startswith("block norm attention adds cosine MLP adds its cosine entropy")
    rows = [line.split() for line in lines if line[:1].isdigit()]
    assert [row[0] for row in rows] == ["0", "1", "2"]
    for row, block in zip(rows, found["blocks"], strict=True):
        assert float(row[1]) == pytest.approx(block["norm"], rel=0.01)
        assert float(row[-1]) == pytest.approx(block["entropy"], rel=0.01)
    assert "the text is empty; give one in quotes" in say(*asked, " ", code=2)


def test_what_no_block_tells_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    from mi_crow.cli.commands import layers

    assert layers._shape(None) == ""
    assert layers._shape("no tensor") == "no tensor"
    assert layers._shape((2, 3)) == "2 x 3"


def a_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """Puts a terminal of 100 columns in the place of stderr; gives what asks for what it was told
    since it was last asked."""
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")

    def said() -> str:
        text = terminal.getvalue()
        terminal.seek(0)
        terminal.truncate()
        return text

    return said


def test_a_terminal_gets_a_bar_and_what_the_job_says(monkeypatch: pytest.MonkeyPatch) -> None:
    said = a_terminal(monkeypatch)
    progress = {"event": "progress", "done": 3, "total": 12, "unit": "batches"}
    with display.display_of(quiet=True) as bar:
        assert isinstance(bar, display.JobBar)
        bar.show({"event": "queued"})
        assert "queued" in said()
        bar.waits("cpu \x1b[31m")
        assert "queued: waiting for cpu ␛[31m" in said()
        bar.show({"event": "started"})
        assert "running" in said()
        bar.show({"event": "log", "message": "resumed [bold]here"})
        assert "resumed [bold]here" in said()
        bar.show({**progress, "eta_s": 90.0, "metrics": {"fvu": 0.25, "strange": 1}})
        shown = said()
        assert "25%" in shown
        assert "3 of 12 batches" in shown
        assert " left" in shown
        assert "strange" not in shown
        bar.show({"event": "other"})
        assert said() == ""
        bar.show({**progress, "total": 0, "unit": "%"})
        assert "batches" not in said()


def test_the_bar_of_a_job_that_is_followed_late_counts_from_its_last_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = a_terminal(monkeypatch)
    with display.JobBar(clock=lambda: 1_040.0) as bar:
        read = {"event": "progress", "done": 5, "total": 100, "unit": "%", "eta_s": 90.0}
        bar.show(read | {"t": 1_000.0})
        said()
        bar.is_silent()
        assert "5% 50 s left" in said()


def test_the_bar_says_the_stage_and_counts_down_in_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said, now = a_terminal(monkeypatch), [0.0]
    with display.JobBar(clock=lambda: now[0]) as bar:
        bar.show({"event": "started"})
        bar.is_silent()  # nothing is known yet
        bar.show({"event": "log", "message": "load starts", "stage": "loading the model"})
        assert "0% loading the model" in said()
        bar.show({"event": "progress", "done": 5, "total": 100, "unit": "%", "eta_s": 90.0})
        assert "5% loading the model  1 min 30 s left" in said()
        bar.show({"event": "log", "message": "topics starts", "stage": "tagging topics"})
        assert "5% tagging topics  1 min 30 s left" in said()
        now[0] = 2.0
        bar.is_silent()
        assert said() == ""
        now[0] = 31.0
        bar.is_silent()
        assert "5% tagging topics  59 s left" in said()
        now[0] = 91.0
        bar.is_silent()
        assert " left" not in said()


def test_plain_lines_come_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    lines = display.PlainLines(quiet=False, clock=lambda: now[0])
    for second in range(21):
        now[0] = float(second)
        lines.show({"event": "progress", "done": second, "total": 20, "unit": "rows"})
    lines.show({"event": "log", "message": "done\x07"})
    lines.show({"event": "started"})
    said = ["0 of 20 rows", "10 of 20 rows", "20 of 20 rows", "done␇"]
    assert capsys.readouterr().err.splitlines() == said
    silent = display.PlainLines(quiet=True)
    silent.show({"event": "log", "message": "x"})
    assert capsys.readouterr().err == ""


def test_standard_input_that_is_no_text_is_refused(monkeypatch) -> None:
    from mi_crow.cli.streams import read_input

    data = io.TextIOWrapper(io.BytesIO(bytes(range(128, 256))), "utf-8", errors="replace")
    monkeypatch.setattr("sys.stdin", data)
    with pytest.raises(UserError, match="standard input is not text"):
        read_input()
    mostly = io.TextIOWrapper(io.BytesIO(b"a harbour at night \xff"), "utf-8", errors="replace")
    monkeypatch.setattr("sys.stdin", mostly)
    assert read_input().startswith("a harbour")


def test_a_word_that_a_feature_fires_on_is_listed_once() -> None:
    from mi_crow.cli.commands.causes.inspect import _most

    tokens, acts = [" sea", " sea", " ship", "."], [3.0, 2.0, 1.0, 0.0]
    assert _most(tokens, acts) == "' sea'  ' ship'"
    assert _most(tokens, acts, 1) == "' sea'"
