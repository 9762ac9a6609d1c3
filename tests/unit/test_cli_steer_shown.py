"""`mi-crow steer` on the terminal: pairs, conversations and measurements."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mi_crow.cli import main
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.steering.measure.results import open_measurement
from mi_crow.store.workspace import Workspace
from mi_crow.visible import visible
from tests.helpers.index_runs import identity_sae, save_sae
from tests.helpers.printed import Say, saying
from tests.helpers.session_fixture import add_tiny_sae

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture
def say(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Say:
    return saying(workspace, monkeypatch, capsys, "steer", spaced=True)


@pytest.fixture
def steer(workspace: Workspace, tiny_model_dir: Path, tmp_path: Path, say: Say) -> Say:
    """The same of a small model with a chat template."""
    folder = shutil.copytree(tiny_model_dir, tmp_path / "model")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    add_tiny_sae(workspace, folder, "tiny")
    stack = [{"target": "feature:3", "op": "add", "value": 20, "unit": "latent", "scope": "all"}]
    Annotations(workspace.annotations_path).save_preset("loud", stack)
    return lambda *words, **more: say(*words, "--device", "cpu", "--max-new-tokens", "4", **more)


def sides(text: str) -> dict[str, str]:
    """What is under each of the two titles."""
    first, _, second = text.partition("steered\n")
    return {"baseline": first.removeprefix("baseline\n").strip(), "steered": second.strip()}


def test_both_continuations_are_shown_with_the_figures_of_the_pair(
    steer: Say, workspace: Workspace
) -> None:
    assert "no intervention given" in steer("The ferry", code=2)
    found = json.loads(steer("The ferry", "--preset", "loud", "--json"))
    assert [one["value"] for one in found["interventions"]] == [20]
    Annotations(workspace.annotations_path).save_preset("held", found["interventions"], 0.9)
    within = [
        json.loads(steer("The ferry", "--preset", *words, "--json"))["steered"]
        for words in (("held",), ("loud", "--plausible", "0.9"))
    ]
    assert within[0] == within[1] != found["steered"]
    shown = steer("The ferry", "--preset", "loud")
    for side in ("baseline", "steered"):
        assert f"{side}\n{visible(found[side].splitlines()[0])}\n" in shown
    assert f"prompt: {found['prompt_tokens']} tokens" in shown
    assert ("BOS prepended" in shown) == found["bos_added"]
    rows = [line.split() for line in shown.splitlines()]
    [kl] = [float(row[1]) for row in rows if row[:1] == ["KL"]]
    assert kl == pytest.approx(found["metrics"]["kl"], rel=0.01)
    assert "stopped after" not in shown


def test_a_full_context_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    from mi_crow.cli.commands.steering import _show_pair

    _show_pair(
        {
            "baseline": "one\ntwo",
            "steered": "",
            "prompt_tokens": 1020,
            "shortened_to": 1004,
            "context_length": 2024,
            "metrics": {
                "tokens": 1004,
                "seconds": 36.6,
                "tokens_s": 27.47,
                "kl": 0.19081,
                "perplexity": 42.53,
                "perplexity_ratio": 2.682,
            },
        }
    )
    shown = capsys.readouterr().out
    assert [line.rstrip() for line in shown.splitlines()[-3:]] == [
        "new tokens  1,004 in 36.6 s, 27.5 tokens/s",
        "KL          0.191 nats a token from the plain model",
        "perplexity  42.5, 2.68 times the baseline's",
    ]
    assert shown.startswith("baseline\none\ntwo\n\nsteered\n\n")
    assert "prompt: 1,020 tokens\n" in shown
    assert "stopped after 1,004 new tokens: the model's context of 2,024 is full" in shown


def test_a_conversation_is_answered_and_continued(steer: Say, tmp_path: Path) -> None:
    chat = ("--chat", "--preset", "loud")
    asked = steer(*chat, "A ferry?", "--json")
    found = json.loads(asked)
    shown = sides(steer(*chat, "A ferry?"))
    for side, text in shown.items():
        assert text.split() == [visible(word) for word in found[side].split()]
    before = tmp_path / "before.json"
    before.write_text(asked)
    again = json.loads(steer(*chat, "And then?", "--messages", str(before), "--json"))
    roles = [one["role"] for one in again["branches"]["steered"]]
    assert roles == ["user", "assistant"] * 2
    assert again["branches"]["steered"][1]["content"] == found["steered"]


def test_a_conversation_is_typed_until_an_empty_line(
    steer: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = io.StringIO("A ferry?\n And then? \n\nnever read\n")
    typed.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", typed)
    shown = steer("--chat", "--preset", "loud")
    assert shown.startswith("Type a message; an empty line ends the conversation.\nyou: ")
    assert shown.count("you: ") == 3
    assert shown.count("steered\n") == shown.count("baseline\n") == 2
    assert typed.read() == "never read\n"
    assert "no message given" in steer("--chat", "--preset", "loud", "--json", code=2)


@pytest.mark.parametrize(("width", "beside"), [(120, True), (80, False)])
def test_answers_stand_side_by_side_where_there_is_room(
    width: int, beside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    from mi_crow.cli import tables
    from mi_crow.cli.commands.steer import chatting

    written = io.StringIO()
    out = Console(file=written, force_terminal=True, width=width, color_system=None)
    for module in (tables, chatting):
        monkeypatch.setattr(module, "console", lambda: out)
    chatting._show("calm\nsea \x1b[31m", " rough")
    lines = [line.split() for line in written.getvalue().splitlines()]
    if beside:
        assert lines[:3] == [["baseline", "steered"], ["calm", "rough"], ["sea", "␛[31m"]]
    else:
        assert lines[:3] == [["baseline"], ["calm"], ["sea", "␛[31m"]]
        assert lines[4:6] == [["steered"], ["rough"]]


def arm(name: str, **more: Any) -> dict[str, Any]:
    figures = {"share": 0.5, "share_baseline": 0.25, "share_random": 0.125}
    figures |= {"perplexity_ratio": 1.5, "kl": 0.25, "activation": 3.0, "repetition": 0.5}
    figures |= {"distinct_2": 0.75, "ce_added": 0.125}
    return {"name": name, "recipe": None, **figures, **more}


SHARED: dict[str, Any] = {
    "judge": "label sea",
    "hits_heldout": 0.875,
    "false_alarms": 0.0625,
    "prompts": ["a", "b"],
    "n": 4,
    "seed": 7,
    "sae_id": "tiny",
}


@pytest.fixture
def measured(workspace: Workspace) -> Workspace:
    """A workspace with three measurements: a sweep, one without a winner, a search."""
    sweep = {
        **SHARED,
        "arms": [arm("3=+1", front=True), arm("3=+2"), arm("3=+4")],
        "best": "3=+2",
        "share": 0.5,
        "perplexity_ratio": 1.5,
        "refused": [{"name": "3=+8", "refused": "the model's context is full"}],
        "most_ratio": 2.0,
    }
    poor = {**SHARED, "arms": [arm("3=+1")], "best": None, "most_ratio": 1.25}
    poor |= {"hits_heldout": None, "false_alarms": None}
    auto = {
        **SHARED,
        "arms": [arm("add", recipe="plain", overall=1.5, overall_baseline=0.5)],
        "feature": 3,
        "label": "gulls",
        "recipe": "plain",
        "strength": 0.25,
        "unit": "norm",
        "preset": "gulls-up",
        "share": 0.5,
    }
    for name, result in (("sweep", sweep), ("poor", poor), ("auto", auto)):
        result["measurement"] = name
        open_measurement(workspace, name, "sweep", {}).finish(result)
    return workspace


def test_a_pattern_is_told_with_how_many_texts_it_holds_for(measured: Workspace, say: Say) -> None:
    judged = {"judge": "the pattern 'joint'", "hits_heldout": None, "false_alarms": 0.0083}
    result = {**SHARED, "arms": [arm("3=+1")], "best": None, "most_ratio": 1.25, **judged}
    open_measurement(measured, "joint", "sweep", {}).finish({**result, "measurement": "joint"})
    assert "the pattern 'joint'; 0.83% of held-out texts match it" in say("results", "joint")


@pytest.mark.parametrize("command", [["steer"], ["steer", "evaluate"]])
def test_an_intervention_that_looks_like_an_option_is_told_the_forms(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--steer", "-1=+3"]) == 2
    told = capsys.readouterr().err
    for words in ("42=+8", "vector:calm", "neuron:NAME/7"):
        assert words in told


def test_measurements_are_listed_and_shown(measured: Workspace, say: Say) -> None:
    rows = {line.split()[0]: line.split() for line in say("results").splitlines()}
    assert rows["sweep"][-4:] == ["tiny", "3=+2", "50%", "1.5"]
    assert rows["poor"][-4:] == ["tiny", "-", "-", "-"]
    assert rows["auto"][-4:] == ["tiny", "plain", "50%", "-"]
    shown = say("results", "sweep")
    rows = {line.split()[0]: line.split() for line in shown.splitlines() if line.strip()}
    assert rows["·"][1] == rows["3=+4"][0].replace("4", "1")
    assert " ".join(rows["*"]) == "* 3=+2 50% 25% 12.5% 1.5 0.25 3 0.5 0.75 0.12"
    assert "overall" not in shown
    assert "3=+8: not measured, the model's context is full" in shown
    assert "3=+2: the most hits at a ratio of at most 2 " in shown
    assert "label sea, by words; finds 87.5% of such held-out texts, and 6.25% of others" in shown
    assert "2, 4 continuations, seed 7" in shown
    shown = say("results", "poor")
    assert "none at a ratio of perplexities of at most 1.25" in shown
    assert "label sea, by words " in shown


def test_a_search_shows_its_winner_and_how_it_was_rated(measured: Workspace, say: Say) -> None:
    shown = say("results", "auto")
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert lines[0].split()[:4] == ["stack", "overall", "plain", "hits"]
    assert any(line.startswith("* plain: add 1.5 0.5 50%") for line in lines)
    assert "feature 3 (gulls)" in lines
    assert "preset gulls-up" in lines
    said = "winner plain at 0.25 norm, chosen on other prompts; all figures are of fresh ones"
    assert said in lines
    assert json.loads(say("results", "auto", "--json"))["label"] == "gulls"
    assert "there is" in say("results", "autos", code=2)


def test_without_a_measurement_it_is_said_how_to_make_one(workspace: Workspace, say: Say) -> None:
    assert say("results") == "nothing measured yet; mi-crow steer evaluate\n"
    assert json.loads(say("results", "--json")) == []


@pytest.mark.parametrize(("named", "taken"), [(("b",), "b"), (("a", "b"), None), ((), None)])
def test_a_stack_of_one_sae_is_measured_on_it(
    workspace: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    named: tuple[str, ...],
    taken: str | None,
) -> None:
    for sae_id in ("a", "b"):
        save_sae(workspace, identity_sae(), sae_id)
    stack = [{"target": "feature:3", "op": "add", "value": 1.0, "sae": one} for one in named]
    path = tmp_path / "stack.json"
    path.write_text(json.dumps(stack or [{"target": "feature:3", "op": "add", "value": 1.0}]))
    asked: list[Any] = []

    def run_job(_: Workspace, kind: str, config: Any, *rest: Any) -> int:
        asked.append((kind, config.sae_id))
        return 0

    monkeypatch.setattr("mi_crow.cli.commands.steer.measuring.run_job", run_job)
    words = ["--workspace", str(workspace.root), "steer", "evaluate", str(path)]
    assert main(words) == (0 if taken else 2)
    assert asked == ([("steer-sweep", taken)] if taken else [])
    assert ("choose one with --sae: a, b" in capsys.readouterr().err) == (taken is None)
