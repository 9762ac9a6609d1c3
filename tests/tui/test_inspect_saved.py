"""What was saved on Inspect, opened over another text; and what stays open below an answer."""

import asyncio
import threading
from time import monotonic
from typing import Any

import pytest

from mi_crow.mechanistic.concepts.annotations import Annotations
from tests.tui.driving import drawn, notices, press, screen_text, settle
from tests.tui.test_inspect_comparing import compare, compared, patched
from tests.tui.test_inspect_explaining import SAYS, attributed, lens
from tests.tui.test_inspect_screen import TEXT, inspected
from tui.screens.inspect.differences import DifferencesPopup
from tui.screens.inspect.popups import CausesPopup, GridPopup
from tui.widgets.area import Area
from tui.widgets.forms.popup import FormPopup
from tui.widgets.token_grid import TokenGrid

SAVED = "The ship leaves the harbour at"


def save(pilot: Any, kind: Any, results: dict[str, Any], **settings: Any) -> None:
    annotations = Annotations(pilot.app.context.workspace.annotations_path)
    sae_ids = ["demo-topk"]
    annotations.save_inspection(
        kind, kind, SAVED, results, settings=settings, model_id="sample", sae_ids=sae_ids
    )


def held(session: Any, of: str) -> tuple[threading.Event, threading.Event]:
    """Has the session wait with its answer: (asked, go on)."""
    asked, go_on = threading.Event(), threading.Event()
    call = session.call

    def waiting(op: str, **params: Any) -> dict[str, Any]:
        if op == of:
            asked.set()
            go_on.wait(60)
        return call(op, **params)

    session.call = waiting
    return asked, go_on


async def test_while_a_text_is_read_the_footer_says_that_escape_stops_it(open_inspect):
    async with open_inspect() as (pilot, session):
        asked, go_on = held(session, "inspect")

        def footer() -> str:
            return screen_text(pilot).splitlines()[-1]

        field = pilot.app.screen.query_one(Area)
        field.text = TEXT
        field.focus()
        await drawn(pilot.app)
        assert "esc leave the field" in footer()
        await pilot.press("ctrl+r")
        assert await asyncio.to_thread(asked.wait, 60)
        await drawn(pilot.app)
        assert "esc stop" in footer()
        field.focus()
        await drawn(pilot.app)
        assert "esc stop" in footer()
        assert "leave the field" not in footer()
        go_on.set()
        await settle(pilot)
        field.focus()
        await drawn(pilot.app)
        assert "esc leave the field" in footer()


async def test_a_saved_lens_is_explained_with_its_own_text_and_leaves_the_field_alone(open_inspect):
    async with open_inspect() as (pilot, session):
        await inspected(pilot)
        session.answers["attribute"] = attributed("demo-topk")
        save(pilot, "lens", lens(), windows=True, bos="never")
        await press(pilot, "K", "enter")
        assert isinstance(pilot.app.screen, GridPopup)
        await press(pilot, "a")
        assert isinstance(pilot.app.screen, CausesPopup)
        op, asked = session.asked[-1]
        assert (op, asked["text"]) == ("attribute", SAVED)
        assert (asked["windows"], asked["bos"]) == (True, "never")
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, GridPopup)
        await press(pilot, "escape")
        screen: Any = pilot.app.screen_stack[0]
        assert (screen.query_one(Area).text, screen.text_read) == (TEXT, TEXT)
        assert len(pilot.app.screen_stack) == 1


async def test_an_inspection_is_saved_under_the_new_name_of_its_sae(open_inspect):
    async with open_inspect() as (pilot, session):
        found = session.call("inspect", text=TEXT)
        session.answers["inspect"] = {**found, "sae_id": "demo-topk"}
        await inspected(pilot)
        app, inspect = pilot.app, pilot.app.screen
        app.sae_renamed("demo-topk", "harbour")
        await settle(pilot)
        assert inspect._inspection.tokens  # what was found stays
        await press(pilot, "S", "enter")
        (line,) = app.context.annotations.inspections()
        kept = app.context.annotations.inspection(line.name)
        assert (kept.sae_ids, kept.results["sae_id"]) == (("harbour",), "harbour")


@pytest.mark.slow
async def test_saved_layers_drill_into_their_own_text(open_inspect):
    async with open_inspect() as (pilot, session):
        await inspected(pilot)
        one = session.call("inspect", text=SAVED)
        one["features"] = [row | {"concept": None, "label": "sea"} for row in one["features"]]
        shares = [None, *[0.5] * (len(one["tokens"]) - 1)]
        sae = {**one, "sae_id": "demo-topk", "point": "resid_post.2", "explained": shares}
        save(pilot, "layers", {**one, "saes": [sae]})
        await press(pilot, "K", "enter", "home", "l", "l")
        token = pilot.app.screen.query_one("#grid", TokenGrid).column
        await press(pilot, "enter")
        screen = pilot.app.screen
        assert (screen.query_one(Area).text, screen.text_read) == (SAVED, SAVED)
        assert screen.token == token


@pytest.mark.slow
async def test_what_was_typed_comes_back_after_a_saved_text_took_its_place(open_inspect):
    async with open_inspect() as (pilot, session):
        save(pilot, "inspect", session.call("inspect", text=SAVED))
        await press(pilot, "e", *"not read", "escape", "K", "enter")
        field = pilot.app.screen.query_one(Area)
        assert (field.text, pilot.app.screen.text_read) == (SAVED, SAVED)
        assert "brings back what was typed" in notices(pilot)
        await press(pilot, "e", "ctrl+z")
        assert field.text == "not read"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("feature 0 of demo-topk", "Restoring feature 0 of demo-topk:"),
        ("SAE demo-topk", "Restoring what SAE demo-topk's features write:"),
        ("attn", "Restoring attention's output:"),
    ],
)
async def test_a_saved_patching_says_what_was_restored(open_inspect, what: str, words: str):
    async with open_inspect() as (pilot, _):
        save(pilot, "patch", patched() | {"what": what}, corrupted="The court")
        await press(pilot, "K", "enter")
        assert words in screen_text(pilot)


async def test_keys_act_while_a_model_works(open_inspect):
    async with open_inspect() as (pilot, session):
        await inspected(pilot)
        session.answers["attribute"] = attributed("demo-topk")
        asked, go_on = held(session, "attribute")
        try:
            await pilot.press("a")
            while not asked.is_set():
                await pilot.pause()
            await pilot.press("2")
            ends = monotonic() + 20.0  # keys for a form are held for half a minute
            while pilot.app.current_mode != "features" and monotonic() < ends:
                await pilot.pause(0.01)
            assert pilot.app.current_mode == "features"
        finally:
            go_on.set()


async def test_an_answer_waits_for_its_screen(open_inspect):
    async with open_inspect() as (pilot, session):
        await inspected(pilot)
        session.answers["attribute"] = attributed("demo-topk")
        asked, go_on = held(session, "attribute")
        await pilot.press("a")
        while not asked.is_set():
            await pilot.pause()
        await pilot.app.go("features")
        go_on.set()
        await settle(pilot)
        assert not isinstance(pilot.app.screen, CausesPopup)
        assert "Inspect has an answer: 3 shows it" in notices(pilot)
        await press(pilot, "3")
        assert isinstance(pilot.app.screen, CausesPopup)


@pytest.mark.slow
async def test_keys_typed_behind_a_question_are_for_its_answer(open_inspect, monkeypatch):
    monkeypatch.setattr("tui.threads.HOLD_S", 60.0)  # however long a busy machine takes to answer
    async with open_inspect() as (pilot, session):
        await inspected(pilot)
        session.answers["attribute"] = attributed("demo-topk")
        _, go_on = held(session, "attribute")
        threading.Timer(0.2, go_on.set).start()
        await pilot.press("a", "2")
        await settle(pilot)
        assert isinstance(pilot.app.screen, CausesPopup)
        assert pilot.app.current_mode == "inspect"


async def test_a_question_that_is_not_asked_leaves_the_answer_as_it_was(open_inspect):
    async with open_inspect() as (pilot, session):
        await inspected(pilot)
        session.answers["attribute"] = attributed("demo-topk")
        session.answers["predict"] = {"predictions": SAYS, "predictions_without": SAYS}
        await press(pilot, "a", "space", "e")
        assert isinstance(pilot.app.screen, FormPopup)
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, CausesPopup)
        assert "✗ #3" in screen_text(pilot)
        await press(pilot, "e", "ctrl+r")
        assert isinstance(pilot.app.screen, CausesPopup)
        assert "✗" not in screen_text(pilot)
        await press(pilot, "escape")
        assert len(pilot.app.screen_stack) == 1


@pytest.mark.slow
async def test_a_feature_of_an_answer_over_a_grid_opens_and_closes_both(open_inspect):
    async with open_inspect() as (pilot, session):
        await inspected(pilot)
        session.answers |= {"lens": lens(), "attribute": attributed("demo-topk")}
        await press(pilot, "D", "a", "enter")
        assert pilot.app.current_mode == "features"
        await press(pilot, "3")
        assert len(pilot.app.screen_stack) == 1


@pytest.mark.slow
async def test_patching_from_a_comparison_goes_back_to_it(open_inspect):
    async with open_inspect() as (pilot, session):
        await compare(pilot, session)
        session.answers |= {"compare": compared(), "patch": patched()}
        await press(pilot, "p", "escape")
        assert isinstance(pilot.app.screen, DifferencesPopup)


@pytest.mark.slow
@pytest.mark.parametrize("key", ["a", "m", "D", "M", "S"])
async def test_a_text_that_is_being_read_is_no_missing_text(open_inspect, key: str):
    async with open_inspect() as (pilot, session):
        asked, go_on = held(session, "inspect")
        pilot.app.screen.query_one(Area).text = TEXT
        await pilot.press("ctrl+r")
        while not asked.is_set():
            await pilot.pause()
        await pilot.press(key)
        await pilot.pause()
        text = screen_text(pilot)
        go_on.set()
        await settle(pilot)
        assert "type a text first" not in text
        assert "The text is still being read" in notices(pilot)


@pytest.mark.slow
async def test_a_text_that_was_not_read_yet_is_no_missing_text(open_inspect):
    async with open_inspect() as (pilot, _):
        pilot.app.screen.query_one(Area).text = TEXT
        await press(pilot, "a")
        assert "ctrl+r reads it" in screen_text(pilot)
