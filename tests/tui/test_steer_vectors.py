"""The vectors of the workspace over Steer: looked into, exchanged, refined, noted, removed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.vectors.stored import norms_of, read_summary, vector_path
from tests.helpers.near_session import NearSession
from tests.tui.driving import notices, press, screen_text, settle
from tests.tui.stand_ins import SAE
from tests.tui.vector_files import INSIDE, add_vector
from tui.app import MiCrowApp
from tui.screens.features.detail import FeatureDetailPane
from tui.screens.vectors.content import Known, vector_detail
from tui.widgets.field import Field
from tui.widgets.forms.popup import FormPopup
from tui.widgets.frame.popup import Confirm


async def test_vectors_are_listed_looked_into_and_sent_to_the_stack(open_steer, app_workspace):
    async with open_steer(size=(120, 40)) as (pilot, session):
        await press(pilot, "D")
        assert "no vectors yet: n makes one" in screen_text(pilot)
        await press(pilot, "escape")
        add_vector(app_workspace, "calm")
        session.answers["look_into"] = INSIDE
        await press(pilot, "D")
        text = screen_text(pilot)
        for words in ("calm", "probe", "resid_post.2", "0.97", "norm 4.00", "label:sea"):
            assert words in text
        await press(pilot, "enter")
        text = screen_text(pilot)
        for words in ("#3 ", "0.81", "sum 64%", "gulls"):
            assert words in text
        op, params = session.asked[-1]
        assert (op, params["name"], params["sae_id"], params["run_id"]) == (
            "look_into",
            "calm",
            "demo-topk",
            "demo",
        )
        await press(pilot, "r", *"ease", "enter")
        assert "The vector calm is called ease now" in notices(pilot)
        await press(pilot, "s")
        await settle(pilot)
        (one,) = pilot.app.context.steered
        assert one.target == "vector:ease"
        Annotations(app_workspace.annotations_path).save_preset("quiet", [one.as_json()])
        await press(pilot, "D", "x")
        question = pilot.app.screen
        assert isinstance(question, Confirm)
        assert "used by the stack of Steer, the preset quiet" in question._detail
        await press(pilot, "y")
        assert not (app_workspace.vectors_dir / "ease.safetensors").exists()


def test_a_vector_of_a_search_says_what_it_was_made_for(app_workspace):
    add_vector(app_workspace, "calm")
    summary = read_summary(vector_path(app_workspace, "calm"))
    made = {**summary.made, "of": {"sae": SAE, "feature": 3, "label": "sea"}}
    told = vector_detail(Known(replace(summary, made=made), {}), None, "", 80).plain
    assert f"made for      #3 of {SAE}, sea" in told


async def test_a_feature_that_a_vector_is_made_of_is_opened(open_steer, app_workspace):
    add_vector(app_workspace, "calm")
    async with open_steer(size=(120, 40)) as (pilot, session):
        session.answers["look_into"] = INSIDE
        await press(pilot, "D", "enter", "tab", "tab", "j", "enter")
        assert pilot.app.current_mode == "features"
        assert pilot.app.screen.query_one(FeatureDetailPane).feature == 17


async def test_a_note_stands_beside_the_vector_and_its_direction_stays(open_steer, app_workspace):
    add_vector(app_workspace, "calm")
    path = vector_path(app_workspace, "calm")
    before = norms_of(path)
    async with open_steer(size=(120, 40)) as (pilot, _):
        await press(pilot, "D", "e", *"half as strong", "enter")
        assert "half as strong" in screen_text(pilot)
        assert norms_of(path) == before
        assert read_summary(path).made["for"] == ["label:sea"]
        await press(pilot, "e", "backspace", "enter")
        assert "note" not in read_summary(path).made


async def test_vectors_go_to_files_and_come_from_them(open_steer, app_workspace, tmp_path: Path):
    add_vector(app_workspace, "calm")
    async with open_steer(size=(120, 40)) as (pilot, _):
        assert isinstance(pilot.app, MiCrowApp)
        pilot.app.context._session = NearSession(app_workspace)  # type: ignore[assignment]
        out = tmp_path / "calm.gguf"
        await press(pilot, "D", "w", *str(out), "enter")
        assert out.is_file(), notices(pilot)
        await press(pilot, "I")
        form = pilot.app.screen
        assert isinstance(form, FormPopup)
        form.query_one("#field-path", Field).value = str(tmp_path / "calm.txt")
        await press(pilot, "ctrl+r")
        assert "is neither .safetensors nor .gguf" in screen_text(pilot)
        form.query_one("#field-path", Field).value = str(out)
        await press(pilot, "ctrl+r")
        assert "vector 'calm' exists already; choose another name" in " ".join(
            screen_text(pilot).split()
        )
        form.query_one("#field-name", Field).value = "again"
        await press(pilot, "ctrl+r")
        assert "Imported the vector again" in notices(pilot)
        assert norms_of(vector_path(app_workspace, "again")) == pytest.approx({"resid_post.2": 4.0})
        bad = tmp_path / "bad.gguf"
        bad.write_bytes(b"GGUF" + json.dumps({}).encode())
        await press(pilot, "I")
        pilot.app.screen.query_one("#field-path", Field).value = str(bad)
        await press(pilot, "ctrl+r")
        assert isinstance(pilot.app.screen, FormPopup)
        assert "bad" in screen_text(pilot)
        assert not (app_workspace.vectors_dir / "bad.safetensors").exists()


async def test_refining_asks_the_session_and_shows_the_new_vector(open_steer, app_workspace):
    add_vector(app_workspace, "calm")
    async with open_steer(size=(120, 40)) as (pilot, session):
        session.answers["refine_vector"] = {"name": "calm-4"}
        await press(pilot, "D", "f")
        pilot.app.screen.query_one("#field-keep", Field).value = "4"
        await press(pilot, "ctrl+r")
        op, params = session.asked[-1]
        assert (op, params["name"], params["new"], params["keep"], params["sae_id"]) == (
            "refine_vector",
            "calm",
            "calm-4",
            4,
            "demo-topk",
        )
        assert "Made the vector calm-4" in notices(pilot)


@pytest.mark.parametrize(
    "size",
    [
        pytest.param((80, 24), id="small"),
        pytest.param((200, 60), id="large", marks=pytest.mark.slow),
    ],
)
def test_picture_of_a_vector(snap_compare, app_workspace, size):
    from tests.tui.stand_ins import give_index

    for name in ("calm", "sea-breeze"):
        add_vector(app_workspace, name)
    app = MiCrowApp(app_workspace, "demo-topk")

    async def drive(pilot) -> None:
        await settle(pilot)
        give_index(app).answers["look_into"] = INSIDE
        await settle(pilot)
        await press(pilot, "4", "D", "enter")

    assert snap_compare(app, terminal_size=size, run_before=drive)


async def test_a_vector_that_is_not_there_is_refused_in_the_form(open_steer, app_workspace):
    add_vector(app_workspace, "calm")
    async with open_steer(size=(120, 40)) as (pilot, _):
        await press(pilot, "n")
        form = pilot.app.screen
        assert isinstance(form, FormPopup)
        form.query_one("#field-target", Field).value = "vector:nope"
        await press(pilot, "ctrl+r")
        assert pilot.app.screen is form
        assert "vector 'nope' not found" in screen_text(pilot)
        form.query_one("#field-target", Field).value = "vector:calm"
        await press(pilot, "ctrl+r")
        assert pilot.app.context.steered[-1].target == "vector:calm"
