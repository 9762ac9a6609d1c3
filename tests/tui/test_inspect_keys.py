"""The keys and hints of Inspect, and of what opens over it, are told where they act, at 80x24."""

from typing import Any

import pytest

from tests.tui.driving import press, screen_text
from tests.tui.test_inspect_comparing import compare
from tests.tui.test_inspect_explaining import attributed, lens
from tests.tui.test_inspect_screen import inspected
from tui.actions import SCREENS
from tui.widgets.frame.help import HelpPopup, help_blocks, screen_scopes


def footer(pilot: Any) -> str:
    return screen_text(pilot).splitlines()[-1]


def test_what_a_key_does_never_stands_in_the_column_of_keys() -> None:
    for name in SCREENS:
        for block in help_blocks(screen_scopes(name), {}, 44):
            _, *lines = block.plain.splitlines()
            for line in lines:
                assert len(line) <= 65, line
                assert line[20] == " "
                assert line[21] != " "


@pytest.mark.slow
async def test_help_wraps_beside_the_keys(open_inspect):
    async with open_inspect() as (pilot, _):
        await press(pilot, "2", "question_mark")
        text = screen_text(pilot)
        line = next(one for one in text.splitlines() if "removes it" in one)
        plain = line.replace("│", " ")
        assert len(plain) - len(plain.lstrip()) >= 20


async def test_the_footer_names_what_inspect_is_for(open_inspect):
    async with open_inspect() as (pilot, _):
        await inspected(pilot)
        for words in ("a why", "m grid", "D lens"):
            assert words in footer(pilot)


async def test_the_footer_of_a_question_at_the_foot_has_its_keys(open_inspect):
    async with open_inspect() as (pilot, _):
        await press(pilot, "n", "f")
        assert footer(pilot).split() == ["enter", "accept", "esc", "cancel"]
        await press(pilot, "escape", "e")
        assert "esc leave the field" in footer(pilot)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "has", "lacks"),
    [
        (("a",), "Ablate the feature here", "Take the vector off"),
        (("D",), "Find what made the model say it", "Take the vector off"),
        (("m",), "Add a vector as a row", "Save the text"),
    ],
)
async def test_help_names_the_keys_of_what_is_open(open_inspect, keys, has: str, lacks: str):
    async with open_inspect((120, 40)) as (pilot, session):
        await inspected(pilot)
        session.answers |= {"attribute": attributed("demo-topk"), "lens": lens()}
        await press(pilot, *keys, "question_mark")
        assert isinstance(pilot.app.screen, HelpPopup)
        text = screen_text(pilot)
        assert has in text
        assert lacks not in text
        await press(pilot, "escape", "escape")
        assert len(pilot.app.screen_stack) == 1


@pytest.mark.slow
async def test_help_names_the_keys_of_a_comparison(open_inspect):
    async with open_inspect((120, 40)) as (pilot, session):
        await compare(pilot, session)
        await press(pilot, "question_mark")
        assert "Patch the second text with the first" in screen_text(pilot)


@pytest.mark.slow
async def test_hints_of_forms_are_read_to_the_end(open_inspect):
    async with open_inspect() as (pilot, _):
        await inspected(pilot)
        await press(pilot, "equals_sign")
        assert "others, a file" in " ".join(screen_text(pilot).replace("│", " ").split())
        await press(pilot, "escape")
        pilot.app.screen.action_ask_why()
        await press(pilot, "tab")
        text = " ".join(screen_text(pilot).replace("│", " ").split())
        assert "counted from 0, from the end with -1" in text
        await press(pilot, "shift+tab")
        text = " ".join(screen_text(pilot).replace("│", " ").split())
        assert "of all; ↓ lists" in text
