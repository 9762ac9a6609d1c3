"""The Inspect screen: a text, its heat, the features of the text and of a token."""

import pytest
from textual.pilot import Pilot

from mi_crow.errors import UserError
from tests.tui.driving import notices, press, screen_text, settle
from tui import messages
from tui.screens.features.detail import FeatureDetailPane
from tui.widgets.area import Area
from tui.widgets.lists.row_list import RowList
from tui.widgets.token_pane import TokenPane

TEXT = "The harbour was quiet before the storm; two sloops lay at anchor."


async def inspected(pilot: Pilot, text: str = TEXT) -> None:
    pilot.app.screen.query_one(Area).text = text
    await press(pilot, "ctrl+r")


async def test_typing_goes_to_the_text_and_ctrl_r_inspects_it(open_inspect):
    async with open_inspect() as (pilot, session):
        await press(pilot, "e", *"2 jkq")
        assert pilot.app.screen.query_one(Area).text == "2 jkq"
        assert pilot.app.current_mode == "inspect"
        await press(pilot, "ctrl+r")
        assert ("inspect", "2 jkq") in [(op, asked.get("text")) for op, asked in session.asked]
        assert pilot.app.screen.query_one(TokenPane).has_focus


async def test_the_strongest_feature_heats_the_text_and_its_peak_is_written_out(open_inspect):
    async with open_inspect() as (pilot, session):
        await inspected(pilot)
        result = session.call("inspect", text=TEXT, top=40)
        first = result["features"][0]
        peak = max(range(len(first["acts"])), key=first["acts"].__getitem__)
        token = result["tokens"][peak].strip()
        expected = f"peak “{token}” {first['max_act']:.2f}"
        assert expected in screen_text(pilot)
        assert f"#{first['feature']}" in screen_text(pilot)


@pytest.mark.slow
async def test_the_list_of_a_token_follows_the_cursor(open_inspect):
    async with open_inspect() as (pilot, session):
        await inspected(pilot)
        await press(pilot, "g", "right", "right")
        result = session.call("inspect", text=TEXT, top=40)
        assert f"At “{result['tokens'][2].strip()}”" in screen_text(pilot)
        rows = pilot.app.screen.query_one("#list-token", RowList).rows
        assert [row.key for row in rows] == [str(f) for f, _ in result["per_token"][2]]


@pytest.mark.slow
async def test_special_and_outlier_tokens_say_what_they_are(open_inspect):
    async with open_inspect() as (pilot, _):
        await inspected(pilot)
        await press(pilot, "g")
        assert "special token" in screen_text(pilot)
        await press(pilot, "l")
        assert "outlier" in screen_text(pilot)


@pytest.mark.slow
async def test_choosing_a_feature_heats_the_text_with_it_and_enter_opens_it(open_inspect):
    async with open_inspect() as (pilot, _):
        await inspected(pilot)
        await press(pilot, "tab", "j")
        key = pilot.app.screen.query_one("#list-text", RowList).key
        assert f"#{key}" in screen_text(pilot).splitlines()[6]
        await press(pilot, "enter")
        assert pilot.app.current_mode == "features"
        assert pilot.app.screen.query_one(FeatureDetailPane).feature == int(key or -1)
        await press(pilot, "backspace")
        assert pilot.app.current_mode == "inspect"


@pytest.mark.slow
async def test_a_feature_sent_here_with_its_text_is_looked_for(open_inspect):
    async with open_inspect() as (pilot, _):
        await pilot.app.go("inspect", messages.SendToInspect(43, TEXT))
        await settle(pilot)
        assert pilot.app.screen.query_one(Area).text == TEXT
        assert pilot.app.screen.query_one("#list-text", RowList).key == "43"
        assert "#43" in screen_text(pilot)


@pytest.mark.slow
async def test_a_feature_that_does_not_fire_says_so(open_inspect):
    async with open_inspect() as (pilot, _):
        await pilot.app.go("inspect", messages.SendToInspect(1234, TEXT))
        await settle(pilot)
        assert "#1234" in screen_text(pilot)
        assert "does not fire on this text" in screen_text(pilot)


@pytest.mark.slow
async def test_an_empty_text_asks_nothing_of_the_session(open_inspect):
    async with open_inspect() as (pilot, session):
        await press(pilot, "ctrl+r")
        assert session.asked == []
        assert "type a text first" in screen_text(pilot)


@pytest.mark.slow
async def test_a_refusal_is_told_and_the_next_try_works(open_inspect):
    async with open_inspect() as (pilot, session):
        session.error = UserError("the text is too long", hint="shorten it")
        await inspected(pilot)
        assert "the text is too long; shorten it" in notices(pilot)
        session.error = None
        await press(pilot, "ctrl+r")
        assert "tokens" in screen_text(pilot)


@pytest.mark.slow
async def test_without_an_sae_it_says_what_to_do(run_app, empty_workspace):
    async with run_app(empty_workspace) as pilot:
        await press(pilot, "3", "e", "h", "i", "ctrl+r")
        assert "no SAE is open" in notices(pilot)


@pytest.mark.slow
async def test_the_feature_goes_on_to_steer(open_inspect):
    async with open_inspect() as (pilot, _):
        await pilot.app.go("inspect", messages.SendToInspect(3, TEXT))
        await settle(pilot)
        await press(pilot, "s")
        assert pilot.app.current_mode == "steer"
        assert "#3" in screen_text(pilot)


@pytest.mark.slow
async def test_lines_of_tokens_are_walked_by_line(open_inspect):
    async with open_inspect() as (pilot, _):
        await inspected(pilot, "one two three\nfour five six\n")
        tokens = pilot.app.screen.query_one(TokenPane)
        await press(pilot, "g", "j")
        below = tokens.cursor
        assert below > 3
        await press(pilot, "k")
        assert tokens.cursor < below
        await press(pilot, "G")
        assert tokens.cursor == len(tokens._texts) - 1


@pytest.mark.slow
async def test_w_reads_all_of_a_long_text_and_cuts_it_again(open_inspect):
    async with open_inspect() as (pilot, session):
        call = session.call

        def cut(op, **params):
            result = call(op, **params)
            if op != "inspect":
                return result
            read = {"tokens_read": 900, "windows": 8} if params["windows"] else {"tokens_read": 128}
            return result | {"tokens_total": 900, "bos_added": True, "windows": 1} | read

        session.call = cut
        await inspected(pilot)
        for words in ("128 of 900 tokens", "W reads all, BOS"):
            assert words in screen_text(pilot)
        await press(pilot, "W")
        assert "8 windows" in screen_text(pilot)
        assert "W reads all" not in screen_text(pilot)
        await press(pilot, "W")
        assert "128 of" in screen_text(pilot)
