"""While a model loads, what is typed is meant for the screen; no answer takes the focus away."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mi_crow.errors import UserError
from tests.tui.driving import press, screen_text, settle
from tests.tui.stand_ins import ScriptedSession, give_index
from tui import messages
from tui.widgets.area import Area
from tui.widgets.frame.help import HelpPopup
from tui.widgets.prompt_line import PromptLine

TEXT = "The ferry left."
FIELDS = {"3": "#inspect-text", "4": "#steer-prompt", "6": "#probe-text"}


@contextmanager
def held(session: ScriptedSession) -> Iterator[threading.Event]:
    """A session whose first answer waits, as it does while a model loads."""
    asked, go_on = threading.Event(), threading.Event()
    call = session.call

    def wait(op, **params):
        asked.set()
        go_on.wait(60)
        if op in ("layers", "hooks", "layer_stats"):
            raise UserError("the session says no")
        return call(op, **params)

    session.call = wait
    try:
        yield asked
    finally:
        go_on.set()


@pytest.mark.slow
@pytest.mark.parametrize("digit", FIELDS)
async def test_after_running_a_text_keys_act_on_the_screen(run_app, app_workspace, digit):
    async with run_app(app_workspace, sae_id="demo-topk") as pilot:
        session = give_index(pilot.app)
        await settle(pilot)
        await press(pilot, digit, "e")
        area = pilot.app.screen.query_one(FIELDS[digit], Area)
        area.text = TEXT
        with held(session) as asked:
            await pilot.press("ctrl+r")
            while not asked.is_set():
                await pilot.pause()
            await pilot.press("j", "x", "question_mark")
            await pilot.pause()
            assert area.text == TEXT
            assert isinstance(pilot.app.screen, HelpPopup)
            await pilot.press("escape")
        await settle(pilot)


async def test_an_answer_leaves_the_focus_where_somebody_put_it(run_app, app_workspace):
    async with run_app(app_workspace, sae_id="demo-topk") as pilot:
        session = give_index(pilot.app)
        await settle(pilot)
        with held(session) as asked:
            await pilot.app.go("inspect", messages.SendToInspect(3, TEXT))
            while not asked.is_set():
                await pilot.pause()
            await pilot.press("e", "end", "z")
            await pilot.pause()
        await settle(pilot)
        area = pilot.app.screen.query_one(Area)
        assert area.has_focus
        assert area.text == TEXT + "z"


@pytest.mark.slow
async def test_keys_typed_for_inspect_are_no_text(run_app, app_workspace):
    async with run_app(app_workspace, sae_id="demo-topk") as pilot:
        give_index(pilot.app)
        await settle(pilot)
        await press(pilot, "3", "j", "s", "4")
        assert pilot.app.current_mode == "steer"
        await press(pilot, "3")
        assert pilot.app.screen.query_one(Area).text == ""


@pytest.mark.slow
async def test_a_line_that_asks_always_shows_how_to_leave_it(run_app, app_workspace):
    async with run_app(app_workspace, size=(40, 24), sae_id="demo-topk") as pilot:
        give_index(pilot.app)
        await settle(pilot)
        await press(pilot, "2", "slash", *"densit")
        assert "esc all features" in screen_text(pilot)
        await press(pilot, *"y<<")
        line = pilot.app.screen.query_one(PromptLine)
        assert line.is_open
        assert "esc cancel" in screen_text(pilot)
