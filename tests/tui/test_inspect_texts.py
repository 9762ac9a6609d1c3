"""Texts for Inspect and what is kept of them: typing, files, documents, chats; save and open."""

import json
from pathlib import Path

import pytest

from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.features.documents import find_documents
from tests.tui.driving import notices, press, screen_text, settle
from tests.tui.test_inspect_explaining import attributed
from tests.tui.test_inspect_screen import TEXT, inspected
from tui.screens.inspect.popups import CausesPopup
from tui.screens.inspect.screen import InspectScreen
from tui.widgets.area import Area
from tui.widgets.lists.row_list import RowList
from tui.widgets.token_pane import TokenPane


def texts_asked(session) -> list[str]:
    return [asked["text"] for op, asked in session.asked if op == "inspect"]


async def test_what_is_typed_is_read_once_the_keys_rest(open_inspect):
    async with open_inspect() as (pilot, session):
        await inspected(pilot, "The")
        await press(pilot, "e", "end", *" sea")
        read = texts_asked(session)
        assert (read[0], read[-1]) == ("The", "The sea")
        assert pilot.app.screen.text_read == "The sea"
        assert pilot.app.screen.query_one(Area).has_focus
        await press(pilot, "escape", "ctrl+r")
        assert texts_asked(session)[len(read) :] == ["The sea"]


async def test_the_first_features_stand_under_each_token(open_inspect) -> None:
    async with open_inspect() as (pilot, session):
        await inspected(pilot)
        await press(pilot, "d", "g")
        tokens = pilot.app.screen.query_one(TokenPane)
        found = session.call("inspect", text=TEXT)["per_token"]
        token = next(n for n, pairs in enumerate(found) if len(pairs) >= 3)
        shown = screen_text(pilot)
        assert any(str(feature) in shown for feature, _ in found[token][:3])
        await press(pilot, "j")
        below = tokens.cursor
        assert below > 1
        await press(pilot, "k")
        assert tokens.cursor < below
        await press(pilot, "d")
        assert pilot.app.screen.state()["labelled"] is False


async def test_a_text_comes_from_a_file_or_an_indexed_document(open_inspect, tmp_path: Path):
    file = tmp_path / "story.txt"
    file.write_text("Two sloops lay at anchor.\n\nThe storm came.")
    async with open_inspect() as (pilot, session):
        await press(pilot, "n", "f", *str(file), "enter")
        assert texts_asked(session) == [file.read_text()]
        await press(pilot, "n", "d", *"0", "enter")
        text = find_documents(pilot.app.context.features.connection, "0")[0].text
        assert texts_asked(session)[1] == text
        await press(pilot, "n", "d", "enter")
        assert len(pilot.app.screen.query_one(RowList).rows) > 1
        await press(pilot, "j", "enter")
        assert (
            texts_asked(session)[2]
            == find_documents(pilot.app.context.features.connection, "")[1].text
        )


@pytest.mark.slow
async def test_what_is_no_text_is_told(open_inspect, tmp_path: Path):
    (tmp_path / "b.bin").write_bytes(b"\xff\x00\xfe")
    (tmp_path / "e.txt").write_text(" \n")
    async with open_inspect() as (pilot, session):
        for name, words in (
            ("b.bin", "'b.bin' is not a text file"),
            ("e.txt", "'e.txt' is empty"),
            ("gone.txt", "there is no file"),
        ):
            await press(pilot, "n", "f", *str(tmp_path / name), "enter")
            assert words in notices(pilot)
        await press(pilot, "n", "d", *"zzzz", "enter")
        assert "no indexed document has 'zzzz'" in notices(pilot)
        await press(pilot, "n", "s")
        assert "No generation is saved yet" in notices(pilot)
        assert session.asked == []


async def test_a_conversation_goes_through_the_template(open_inspect):
    async with open_inspect() as (pilot, session):
        session.answers["render"] = {"text": "<|user|>hello<|assistant|>"}
        await press(pilot, "n", "c")
        assert "write lines that begin with user:" in notices(pilot)
        await press(pilot, "escape")
        pilot.app.screen.query_one(Area).text = "user: hello"
        await press(pilot, "n", "c")
        assert [op for op, _ in session.asked] == ["load", "render", "inspect"]
        assert texts_asked(session) == ["<|user|>hello<|assistant|>"]


@pytest.mark.slow
async def test_a_saved_generation_is_read(open_inspect):
    async with open_inspect() as (pilot, session):
        annotations = Annotations(pilot.app.context.workspace.annotations_path)
        annotations.save_generation(
            model_id="m", prompt="The ship", baseline=" sank", steered=" sailed"
        )
        await press(pilot, "n", "s", "j", "enter")
        assert texts_asked(session) == ["The ship sank"]


async def test_an_inspection_is_saved_opened_renamed_written_and_removed(
    open_inspect, tmp_path: Path
) -> None:
    async with open_inspect() as (pilot, session):
        await inspected(pilot)
        screen = pilot.app.screen
        assert isinstance(screen, InspectScreen)
        shown = screen._inspection
        await press(pilot, "S", "ctrl+r")
        assert "Saved as “The harbour was quiet before”" in notices(pilot)
        session.answers["attribute"] = attributed("demo-topk")
        await press(pilot, "a", "S", *" why", "ctrl+r", "escape")
        assert [op for op, _ in session.asked] == ["load", "inspect", "attribute"]
        screen.query_one(Area).text = "another"
        await press(pilot, "K")
        for words in ("The harbour was quiet before", "inspect", "attribute"):
            assert words in screen_text(pilot)
        await press(pilot, "enter")
        assert isinstance(pilot.app.screen, CausesPopup)
        await press(pilot, "escape", "K", "j", "enter")
        assert screen._inspection == shown
        assert screen.query_one(Area).text == TEXT
        assert len(texts_asked(session)) == 1  # nothing was computed again
        await press(pilot, "K", "r", "ctrl+u", *"why", "ctrl+r")
        assert "is called “why” now" in notices(pilot)
        file = tmp_path / "kept.json"
        await press(pilot, "K", "space", "space", "w", "ctrl+u", *str(file), "ctrl+r")
        assert json.loads(file.read_text())[0]["name"] == "why"
        await press(pilot, "K", "x")
        assert "Removed 1 saved inspection" in notices(pilot)
        await settle(pilot)
        kept = Annotations(pilot.app.context.workspace.annotations_path).inspections()
        assert [one.name for one in kept] == ["The harbour was quiet before"]


async def test_i_on_steer_has_the_steered_text_inspected(open_steer):
    async with open_steer(3) as (pilot, session):
        await press(pilot, "ctrl+r", "i")
        assert pilot.app.current_mode == "inspect"
        assert texts_asked(session) == ["The harbour" + session.STEERED]
