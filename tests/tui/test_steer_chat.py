"""Chat on Steer: each side goes on with what it said; turns are listed, edited, saved, repeated."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from mi_crow.language_model.outline import has_chat_template
from mi_crow.mechanistic.concepts.generation_files import as_markdown
from mi_crow.mechanistic.steering.interventions import parse_intervention
from mi_crow.session import SessionDied
from mi_crow.store.json_object import JsonObject
from tests.helpers.near_session import TEMPLATE, NearSession
from tests.helpers.session_fixture import SAE_ID, add_tiny_sae
from tests.tui.driving import notices, press, screen_text, settle
from tests.tui.stand_ins import ScriptedSession
from tui.app import MiCrowApp
from tui.screens.steer.screen import SteerScreen
from tui.screens.steer.turns import TurnsPopup
from tui.widgets.area import Area
from tui.widgets.field import Field
from tui.widgets.lists.row_list import RowList
from tui.widgets.stream_text import StreamText


@pytest.fixture(autouse=True)
def template_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of the small models have no chat template; their sessions bring one."""
    monkeypatch.setattr("tui.screens.steer.chat_screen.has_chat_template", lambda *_: None)


def field(pilot: Pilot) -> Area:
    return pilot.app.screen.query_one("#steer-prompt", Area)


def turns(pilot: Pilot, side: str) -> list[tuple[str, str]]:
    """What a side shows: who said what, the answer that was just written included."""
    text = pilot.app.screen.query_one(f"#text-{side}", StreamText)
    shown = [turn for passage in text._passages for turn in passage.turns]
    return [*shown, *(("assistant", one.text) for one in text._passages if one.prompt)]


def messages_of(session: Any) -> list[dict[str, Any]]:
    return [params["messages"] for op, params in session.asked if op == "generate"]


async def say(pilot: Pilot, text: str) -> None:
    field(pilot).text = text
    await press(pilot, "ctrl+r")


@asynccontextmanager
async def tiny_chat(
    run_app, workspace, tiny_model_dir, template: str = TEMPLATE
) -> AsyncIterator[tuple[Pilot, NearSession]]:
    """Steer over the tiny model and its SAE, with a push of feature 3 and a chat begun."""
    add_tiny_sae(workspace, tiny_model_dir)
    async with run_app(workspace, size=(120, 40), sae_id=SAE_ID) as pilot:
        assert isinstance(pilot.app, MiCrowApp)
        session = NearSession(workspace, template)
        pilot.app.context._session = session  # type: ignore[assignment]
        await press(pilot, "4")
        screen = pilot.app.screen
        assert isinstance(screen, SteerScreen)
        screen.set_stack([parse_intervention("3=+20").in_sae(SAE_ID)])
        screen.query_one("#steer-tokens", Field).value = "5"
        await press(pilot, "B", "escape")
        yield pilot, session


async def test_each_side_goes_on_with_its_own_answers_and_either_can_be_chosen(
    run_app, empty_workspace, tiny_model_dir
):
    async with tiny_chat(run_app, empty_workspace, tiny_model_dir) as (pilot, session):
        await say(pilot, "A ferry?")
        first = {side: turns(pilot, side) for side in ("baseline", "steered")}
        assert first["baseline"][0] == first["steered"][0] == ("user", "A ferry?")
        assert first["baseline"][1] != first["steered"][1]
        assert field(pilot).text == ""
        await say(pilot, "And then?")
        asked = messages_of(session)[-1]
        for side, said in first.items():
            assert [(one["role"], one["content"]) for one in asked[side][:2]] == said
        assert session.asked[-1][1]["interventions"][0]["scope"] == "all"
        await press(pilot, "B")
        assert isinstance(pilot.app.screen, TurnsPopup)
        rows = [row.cells[0] for row in pilot.app.screen.query_one(RowList).rows]
        assert [cell.text for cell in rows] == [
            "1  user",
            "2  assistant",
            "2  assistant",
            "3  user",
            "4  assistant",
            "4  assistant",
        ]
        await press(pilot, "l")
        assert turns(pilot, "baseline") == turns(pilot, "steered")
        await say(pilot, "Really?")
        asked = messages_of(session)[-1]
        assert asked["baseline"] == asked["steered"]


async def test_a_model_without_a_template_says_so_and_the_message_is_kept(
    run_app, empty_workspace, tiny_model_dir
):
    async with tiny_chat(run_app, empty_workspace, tiny_model_dir, "") as (pilot, _):
        await say(pilot, "A ferry?")
        assert "this model has no chat template" in notices(pilot)
        assert field(pilot).text == "A ferry?"
        await press(pilot, "B", "p")
        assert not pilot.app.screen.query_one("#steer-mode", Static).display
        await say(pilot, "A ferry")
        assert "failed" not in screen_text(pilot)


async def test_a_model_whose_files_have_no_template_is_refused_before_a_chat_begins(
    open_steer, monkeypatch
):
    monkeypatch.setattr("tui.screens.steer.chat_screen.has_chat_template", has_chat_template)
    async with open_steer(3) as (pilot, _):
        footer = screen_text(pilot).splitlines()[-1]
        assert "B chat" not in footer
        assert "x remove" in footer
        await press(pilot, "B")
        assert "this model has no chat template" in notices(pilot)
        assert not pilot.app.screen.query_one("#steer-mode", Static).display
        assert field(pilot).text == "The harbour"


async def test_the_prompt_is_back_where_a_chat_is_left(open_steer):
    async with open_steer(3) as (pilot, _):
        await press(pilot, "B", "escape", "ctrl+r")
        assert field(pilot).text == ""
        await press(pilot, "B", "p")
        assert field(pilot).text == "The harbour"
        await press(pilot, "B", "escape")
        await say(pilot, "Who works there?")
        field(pilot).text = "The docks"  # typed and not sent
        await press(pilot, "B", "p")
        assert field(pilot).text == "The docks"


async def test_turns_are_edited_and_cut_and_a_question_is_answered_again(open_steer):
    async with open_steer(3) as (pilot, session):
        await press(pilot, "B", "escape")
        assert field(pilot).text == "The harbour"  # the prompt is the first message
        await press(pilot, "ctrl+r")
        await say(pilot, "Who works there?")
        await press(pilot, "l")  # a stronger change: the last question once more
        assert len(messages_of(session)) == 3
        assert messages_of(session)[-1] == messages_of(session)[-2]
        assert session.asked[-1][1]["baseline"] is False
        await press(pilot, "B", "g", "enter")
        assert field(pilot).text == "The harbour"
        assert "Edit message 1" in screen_text(pilot)
        await press(pilot, "escape")
        assert field(pilot).text == ""
        assert len(turns(pilot, "steered")) == 4
        await press(pilot, "B", "g", "enter")
        await say(pilot, "The docks")
        assert messages_of(session)[-1] == {
            side: [{"role": "user", "content": "The docks"}] for side in ("baseline", "steered")
        }
        await pilot.app.screen.run_action("system")
        await say(pilot, "Answer briefly")
        assert turns(pilot, "baseline")[0] == ("system", "Answer briefly")
        assert "ctrl+r answers the last question again" in notices(pilot)
        await press(pilot, "B", "G", "enter")
        await say(pilot, "No ships today")
        assert ("assistant", "No ships today") in turns(pilot, "steered")
        assert ("assistant", "No ships today") not in turns(pilot, "baseline")
        await press(pilot, "B", "G", "x")
        assert turns(pilot, "steered")[-1] == ("user", "The docks")


async def test_a_chat_is_saved_opened_and_exported_with_all_that_was_said(open_steer):
    async with open_steer(3) as (pilot, session):
        await press(pilot, "B", "escape", "ctrl+r")
        await say(pilot, "Who works there?")
        asked = messages_of(session)[-1]
        await press(pilot, "S", "B", "p")
        (saved,) = pilot.app.context.annotations.generations()
        assert saved.settings["messages"] == asked
        assert saved.prompt == "Who works there?"
        written = as_markdown([saved])
        assert "user: The harbour" in written
        assert "- messages" not in written
        await press(pilot, "K")
        assert "chat: Who works there?" in screen_text(pilot)
        await press(pilot, "enter")
        assert turns(pilot, "steered")[-1] == ("assistant", session.STEERED)
        await say(pilot, "And at night?")
        assert [one["role"] for one in messages_of(session)[-1]["steered"]] == [
            "user",
            "assistant",
        ] * 2 + ["user"]


async def test_a_session_that_dies_leaves_its_text_and_one_key_asks_again(open_steer):
    async with open_steer(3) as (pilot, session):
        request = ScriptedSession.request

        def dies(op: str, **params: Any):
            for number, event in enumerate(request(session, op, **params)):
                if number == 2:
                    raise SessionDied(
                        "the model session ended (killed by SIGKILL)",
                        hint="the next request restarts it",
                    )
                yield event

        await press(pilot, "B", "escape")
        session.request = dies  # type: ignore[method-assign]
        await press(pilot, "ctrl+r")
        assert "the model session ended (killed by SIGKILL)" in screen_text(pilot)
        assert turns(pilot, "baseline")[-1] == ("assistant", " is quiet")
        assert field(pilot).text == "The harbour"
        del session.request
        await press(pilot, "ctrl+r")
        assert turns(pilot, "baseline")[-1] == ("assistant", session.BASELINE)


@pytest.mark.slow
async def test_a_sweep_looks_aside_and_the_chat_goes_on_from_where_it_was(open_steer):
    async with open_steer(3) as (pilot, session):
        await press(pilot, "B", "escape", "ctrl+r", "V", *"0,1", "enter")
        assert [len(one["steered"]) for one in messages_of(session)] == [1, 1, 1]
        await say(pilot, "Who works there?")
        assert [one["role"] for one in messages_of(session)[-1]["steered"]] == [
            "user",
            "assistant",
            "user",
        ]


@pytest.mark.slow
async def test_the_sample_that_is_shown_is_what_was_said(open_steer):
    async with open_steer(3) as (pilot, session):
        pilot.app.screen.query_one("#steer-samples", Field).value = "2"
        await press(pilot, "B", "escape", "ctrl+r", "right_square_bracket")
        await say(pilot, "And?")
        assert messages_of(session)[-1]["steered"][1]["content"] == f"{session.STEERED} Again."


@pytest.mark.slow
async def test_a_chat_comes_back_at_the_next_start(open_steer):
    async with open_steer(3) as (pilot, _):
        await press(pilot, "B", "escape", "ctrl+r")
        screen = pilot.app.screen
        assert isinstance(screen, SteerScreen)
        said, kept = turns(pilot, "steered"), json.dumps(screen.state())
        await press(pilot, "B", "n")
        assert turns(pilot, "steered") == []
        screen.restore(JsonObject.of(json.loads(kept), "the state"))
        await settle(pilot)
        assert turns(pilot, "steered") == said


@pytest.mark.parametrize(
    "size",
    [
        pytest.param((80, 24), id="small"),
        pytest.param((200, 60), id="large", marks=pytest.mark.slow),
    ],
)
def test_picture_of_a_chat(snap_compare, app_workspace, size):
    from tests.tui.stand_ins import give_index

    app = MiCrowApp(app_workspace, "demo-topk")

    async def drive(pilot: Pilot) -> None:
        await settle(pilot)
        give_index(app)
        await settle(pilot)
        await press(pilot, "4")
        from tui import messages

        await app.go("steer", messages.SendToSteer(3))
        await settle(pilot)
        await press(pilot, "B", "escape")
        await say(pilot, "What is the harbour like?")
        await say(pilot, "Who works there?")
        if size[0] > 80:
            await press(pilot, "B")

    assert snap_compare(app, terminal_size=size, run_before=drive)
