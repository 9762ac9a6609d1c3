"""Measuring on Steer: a sweep and a search as jobs, their tables and charts, figures over texts."""

import json
from typing import Any

import pytest
from textual.screen import Screen
from textual.widgets import Static

from mi_crow.mechanistic.steering.interventions import parse_intervention
from mi_crow.store.workspace import Workspace
from tests.helpers.jobs_fixture import FakeJobs
from tests.tui.conftest import NOW
from tests.tui.driving import notices, press, screen_text, settle
from tests.tui.stand_ins import SAE, give_index
from tests.tui.vector_files import add_vector
from tui import messages
from tui.app import MiCrowApp
from tui.screens.steer.constraint import NO_CONSTRAINT
from tui.screens.steer.measured.popups import ArmsPopup
from tui.screens.steer.measured.results import (
    Measured,
    arm_chart,
    arm_columns,
    arm_rows,
    arm_stack,
    matching_arm,
    side_figures,
    told,
)
from tui.widgets.area import Area
from tui.widgets.field import Field
from tui.widgets.forms.line import FieldLine
from tui.widgets.forms.popup import FormPopup
from tui.widgets.lists.row_list import RowList


def arm(value: float, share: float, ratio: float, **more: Any) -> dict[str, Any]:
    one = {"target": "feature:3", "op": "add", "value": value, "unit": "max", "scope": "all"}
    figures = {"share": share, "perplexity_ratio": ratio, "kl": value, "ce_added": 0.02}
    random = {"share": 0.03, "perplexity_ratio": 1 + 0.2 * value, "kl": value / 2, "ce_added": 0.01}
    return {
        "name": f"feature 3 {value:+g} max",
        "recipe": "",
        "interventions": [one],
        "plausible": None,
        "kl_budget": None,
        **figures,
        "share_baseline": 0.05,
        "repetition": 0.02,
        "distinct_2": 0.95,
        "share_random": 0.03,
        "random": random,
        **more,
    }


def measurement(workspace: Workspace, name: str = "sweep-1", **more: Any) -> None:
    """What a sweep of feature 3 left in the workspace."""
    arms = [
        arm(0.2, 0.21, 1.05, front=True),
        arm(0.4, 0.62, 1.21, front=True),
        arm(0.6, 0.91, 1.44, front=True),
        arm(0.8, 0.86, 1.93, front=False),
    ]
    best = arms[2]
    result = {
        "measurement": name,
        "sae_id": SAE,
        "judge": "harbour",
        "hits_heldout": 0.93,
        "false_alarms": 0.04,
        "prompts": ["The harbour", "In the"],
        "n": 64,
        "seed": 0,
        "most_ratio": 1.5,
        "best": best["name"],
        **{key: best[key] for key in ("share", "share_random", "perplexity_ratio", "kl")},
        "arms": arms,
        **more,
    }
    folder = workspace.root / "steering"
    folder.mkdir(exist_ok=True)
    config = {"interventions": best["interventions"]}
    held = {"kind": "sweep", "config": config, "updated": NOW, "parts": {}, "result": result}
    (folder / f"{name}.json").write_text(json.dumps(held))


def lines_of(form: Screen) -> dict[str, FieldLine]:
    """The fields of a form by their names, also of closed sections."""
    return {line.field.name: line for line in form.query(FieldLine)}


async def test_a_row_of_a_sweep_goes_into_the_stack(open_steer, app_workspace):
    measurement(app_workspace)
    async with open_steer(3) as (pilot, _):
        await press(pilot, "M")
        text = screen_text(pilot)
        assert "● #3 +0.6 max" in text
        assert "91%" in text
        await press(pilot, "enter")
        assert isinstance(pilot.app.screen, ArmsPopup)
        text = screen_text(pilot)
        for words in (
            "★ feature 3 +0.6 max",
            "● feature 3 +0.4 max",
            "harbour, by words",
            "64 texts of 2 prompts",
            "seed 0",  # in a line of its own at 80 columns
            "◆ here",
            "enter take",
        ):
            assert words in text
        await press(pilot, "k", "enter")
        (one,) = pilot.app.context.steered
        assert (one.value, one.sae) == (0.4, SAE)
        assert "The stack is #3 +0.4 max" in notices(pilot)
        await press(pilot, "M", "x", "y", "M")
        assert not pilot.app.screen.query_one(RowList).rows, notices(pilot)
        assert "nothing measured yet" in screen_text(pilot), screen_text(pilot)


async def test_the_figures_of_the_stack_stand_over_the_texts_with_the_controls(
    open_steer, app_workspace
):
    raised = {"target": "feature:3", "op": "floor", "value": 0.3, "unit": "norm", "scope": "all"}
    measurement(app_workspace, arms=[arm(0.4, 0.62, 1.21, interventions=[raised])])
    async with open_steer(3) as (pilot, _):
        await press(pilot, "ctrl+r")

        def over(side: str) -> str:
            line = pilot.app.screen.query_one(f"#figures-{side}", Static)
            return str(line.render()) if line.display else ""

        pilot.app.context.publish(messages.JobsChanged(()))
        await settle(pilot)
        assert over("baseline") == "sweep-1 · hits 5% of 64 texts"
        steered = "sweep-1 · hits 62% of 64 texts (random feature 3%) · perplexity × 1.21 (1.08)"
        assert steered in over("steered")
        renamed = [raised | {"target": "feature:harbour/3"}]
        arms = [arm(0.4, 0.62, 1.21, interventions=renamed)]
        measurement(app_workspace, sae_id="harbour", arms=arms)
        pilot.app.sae_renamed("demo-topk", "harbour")
        await settle(pilot)
        assert steered in over("steered")
        await press(pilot, "l")
        assert over("steered") == ""  # another strength was not measured


async def test_the_figures_are_those_of_the_measurement_that_was_taken(open_steer, app_workspace):
    measurement(app_workspace, "sweep-1", n=8, arms=[arm(0.4, 0.38, 1.21)])
    measurement(app_workspace, "sweep-2", n=4, arms=[arm(0.4, 0.5, 1.1)])
    async with open_steer(3) as (pilot, _):
        await press(pilot, "M", "enter")
        assert "38%" in screen_text(pilot)
        await press(pilot, "enter", "ctrl+r")
        await settle(pilot)
        line = pilot.app.screen.query_one("#figures-steered", Static)
        assert str(line.render()).startswith("sweep-1 · hits 38% of 8 texts")


async def test_a_sweep_is_asked_for_and_followed(
    open_steer, app_workspace, fake_jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
):
    asked: list[tuple[Any, ...]] = []

    def submit(workspace: Workspace, kind: str, params: dict[str, Any], *rest: Any, **more: Any):
        asked.append((kind, params))
        return fake_jobs.add("running", kind, params={"sae_id": SAE}, done=2, total=5, unit="arm")

    monkeypatch.setattr("mi_crow.jobs.launch.submit", submit)
    async with open_steer(3, size=(120, 40)) as (pilot, _):
        await press(pilot, "F")
        assert isinstance(pilot.app.screen, FormPopup)
        await settle(pilot)
        assert "5 settings, each beside a random feature" in screen_text(pilot)
        await press(pilot, "ctrl+r")
        kind, params = asked[-1]
        assert kind == "steer-sweep"
        assert params["strengths"] == [0.5, 0.75, 1.0, 1.25, 1.5]
        assert params["trial"]["prompts"] == ["The harbour"]
        assert params["interventions"][0]["target"] == "feature:3"
        pilot.app.look_now()
        await settle(pilot)
        assert "measuring  arm 3 of 5" in screen_text(pilot)
        await press(pilot, "x", "F")
        assert "nothing on the stack is switched on" in notices(pilot)


async def test_the_form_says_what_the_texts_of_a_vector_are_judged_by(open_steer, app_workspace):
    add_vector(app_workspace, "calm", "label:sailing")
    add_vector(app_workspace, "odd", "odd texts")
    async with open_steer(size=(120, 40)) as (pilot, _):
        for vector, words in (
            ("calm", "label sailing, which the vector was made for"),
            ("calm", "1 setting beside a random direction"),
            ("odd", "not known yet: the stack has no feature"),
            ("odd", "nothing says what the texts should be about"),
        ):
            pilot.app.screen.set_stack([parse_intervention(f"vector:{vector}=+1norm")])
            await press(pilot, "F")
            pilot.app.screen.query_one("#field-strengths", Field).value = ""
            await settle(pilot)
            if words.startswith("nothing says"):
                await press(pilot, "ctrl+r")
            assert words in " ".join(screen_text(pilot).split())
            await press(pilot, "escape", "escape", "y")


async def test_auto_takes_a_feature_a_label_or_a_description(
    open_steer, monkeypatch: pytest.MonkeyPatch
):
    asked: list[dict[str, Any]] = []

    def submit(workspace: Workspace, kind: str, params: dict[str, Any], *rest: Any, **more: Any):
        asked.append(params)
        return "steer-auto-1"

    monkeypatch.setattr("mi_crow.jobs.launch.submit", submit)
    async with open_steer(3, size=(120, 40)) as (pilot, _):
        await press(pilot, "A")
        assert pilot.app.screen.query_one("#field-aim", Field).value == "#3"
        await settle(pilot)
        assert "#3 sails and masts" in screen_text(pilot) or "#3" in screen_text(pilot)
        await press(pilot, "ctrl+r")
        assert (asked[-1]["feature"], asked[-1].get("label")) == (3, None)

        async def ask(text: str, **more: str) -> None:
            await press(pilot, "A")
            for name, value in {"aim": text, **more}.items():
                lines_of(pilot.app.screen)[name].text = value
            await press(pilot, "ctrl+r")

        await ask("zzyzx")
        assert "no feature is about 'zzyzx'" in " ".join(screen_text(pilot).split())
        await press(pilot, "escape", "escape", "y")
        await ask("sailing")
        assert asked[-1]["label"] == "sailing"
        await ask("a mast in the harbour", pattern="mast(")
        assert "'mast(' is not a valid regular expression" in " ".join(screen_text(pilot).split())
        pilot.app.screen.query_one("#field-pattern", Field).value = "mast"
        await settle(pilot)
        assert "features to try: #" in " ".join(screen_text(pilot).split())
        await press(pilot, "ctrl+r")
        assert asked[-1]["description"] == "a mast in the harbour"
        assert asked[-1]["pattern"] == "mast"
        await ask("sailing", rated="yes")
        assert "no LLM endpoint is known" in " ".join(screen_text(pilot).split())
        for name, value in {
            "rating.endpoint": "http://localhost:1/v1",
            "rating.model": "m",
        }.items():
            lines_of(pilot.app.screen)[name].text = value
        await press(pilot, "ctrl+r")
        assert asked[-1]["rating"]["endpoint"] == "http://localhost:1/v1"
        assert len(asked) == 4


async def test_a_job_that_was_started_elsewhere_is_told_when_it_ends(open_steer, fake_jobs):
    job = fake_jobs.add("running", "steer-sweep", params={"sae_id": SAE}, done=2, total=5)
    async with open_steer(3) as (pilot, _):
        pilot.app.look_now()
        await settle(pilot)
        assert "measuring" in screen_text(pilot)
        fake_jobs.finish(job, {"seconds": 1.0})
        pilot.app.look_now()
        await settle(pilot)
        assert "measured: M shows it" in screen_text(pilot)


def test_figures_say_what_judged_and_what_was_steered_beside():
    def of(target: str, stand_in: str = "", **result: Any) -> tuple[Measured, str]:
        held = {"target": target, "op": "add", "value": 0.4, "unit": "norm", "scope": "all"}
        one = arm(0.4, 0.62, 1.21, interventions=[held], overall=1.25, overall_baseline=0.5)
        instead = {target: stand_in} if stand_in else {}
        more = {"sae_id": SAE, "n": 64, "arms": [one], "control_targets": instead, **result}
        found = Measured("sweep-1", "sweep", NOW, more)
        stack = arm_stack(one, SAE)
        return found, side_figures(
            matching_arm([found], stack or (), NO_CONSTRAINT, SAE), "steered"
        ).plain

    found, words = of("vector:calm", "vector:random-1")
    assert "(random direction 3%) · rated 1.25" in words
    assert "random directions" in arm_chart(found, 0, 60, 12)[0].plain
    assert [one.title for one in arm_columns(found)][1] == "rated"
    assert len(arm_columns(found)) == len(arm_rows(found)[0].cells)
    assert "random directions" not in arm_chart(of("layer:x")[0], 0, 60, 12)[0].plain
    assert "(random neuron 3%)" in of("neuron:mlp_in.3/17", "neuron:mlp_in.3/4")[1]
    assert "(random feature 3%)" in of("feature:3")[1]
    heard = {"judge": "the pattern 'sea'", "hits_heldout": None, "false_alarms": 0.031}
    said = told(of("feature:3", **heard)[0])
    assert "the pattern 'sea' · 3.1% of held-out texts match it" in said
    assert "by words" not in said


@pytest.mark.parametrize("size", [(80, 24), pytest.param((200, 60), marks=pytest.mark.slow)])
@pytest.mark.parametrize("keys", [("M",), ("M", "enter"), ("F",)], ids=["list", "arms", "form"])
def test_what_was_measured_is_drawn(snap_compare, app_workspace, size, keys):
    measurement(app_workspace)
    app = MiCrowApp(app_workspace, SAE)

    async def drive(pilot) -> None:
        await settle(pilot)
        give_index(app)
        await settle(pilot)
        await app.go("steer", messages.SendToSteer(3))
        await settle(pilot)
        app.screen.query_one("#steer-prompt", Area).text = "The harbour"
        await press(pilot, "ctrl+r", *keys)
        app.clear_notifications()
        await settle(pilot)

    assert snap_compare(app, terminal_size=size, run_before=drive)
