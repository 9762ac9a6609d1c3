"""The feature whose number is typed is drawn before enter: it looks as one that was not."""

import pytest
from textual.content import Content
from textual.pilot import Pilot

from tests.tui.driving import press, settle, table
from tui.screens.features.opening import OpenFeatureScreen
from tui.widgets.example_list import ExampleList
from tui.widgets.words import Words

FEATURE = 7


async def _typed(pilot: Pilot) -> None:
    await press(pilot, "number_sign", *str(FEATURE))


def _lines(pilot: Pilot) -> list[list[tuple[str, str]]]:
    """What is on the screen, with its colours."""
    strips = pilot.app.screen._compositor.render_strips(pilot.app.size)
    return [[(text, str(style)) for text, style, _ in strip.simplify()] for strip in strips]


async def _without(pilot: Pilot, monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[str, str]]]:
    """The screen with the feature opened without anything drawn ahead."""
    with monkeypatch.context() as patch:
        patch.setattr(OpenFeatureScreen, "_expect", lambda *_: None)
        await _typed(pilot)
        await press(pilot, "enter")
    return _lines(pilot)


@pytest.mark.parametrize("size", [(200, 60), pytest.param((120, 40), marks=pytest.mark.slow)])
async def test_it_looks_as_one_that_was_not_drawn_ahead(open_features, monkeypatch, size):
    async with open_features(size=size) as pilot:
        wanted = await _without(pilot, monkeypatch)
    async with open_features(size=size) as pilot:
        await _typed(pilot)
        examples = pilot.app.screen.query_one(ExampleList)
        ahead = examples._ahead
        assert ahead is not None
        await press(pilot, "enter")
        assert examples._drawn is ahead.drawn
        assert _lines(pilot) == wanted


@pytest.mark.slow
async def test_another_theme_or_terminal_draws_it_anew(open_features, monkeypatch):
    async with open_features(size=(200, 60)) as pilot:
        pilot.app.theme = "textual-light"
        await pilot.resize_terminal(160, 50)
        await settle(pilot)
        wanted = await _without(pilot, monkeypatch)
    async with open_features(size=(200, 60)) as pilot:
        await _typed(pilot)
        pilot.app.theme = "textual-light"
        await pilot.resize_terminal(160, 50)
        await settle(pilot)
        await press(pilot, "enter")
        assert _lines(pilot) == wanted


async def test_a_row_that_is_drawn_ahead_shows_its_new_name(open_features):
    async with open_features(size=(120, 20)) as pilot:
        features = table(pilot)
        place = features.row_count - 1
        feature = features.shown_ids[place]
        features.expect(feature)
        await settle(pilot)
        assert (place, features.text_width, "") in features._strips
        features.say_name(feature, "a new name")
        features.go_to(feature)
        await settle(pilot)
        assert "a new name" in features.render_line(features.size.height - 1).text


async def test_other_words_than_those_drawn_ahead_are_shown(open_features):
    async with open_features(size=(120, 40)) as pilot:
        words = pilot.app.screen.query_one("#examples-title", Words)
        words.draw_ahead(Content("what comes"))
        words.update(Content("what comes instead"))
        await settle(pilot)
        assert words.render_line(0).text.strip() == "what comes instead"
        words.update(Content("what comes"))
        await settle(pilot)
        ahead = words._ahead
        assert ahead is not None
        assert words.render_line(0) is ahead.strips[0]
        pilot.app.theme = "textual-light"
        await settle(pilot)
        assert words.render_line(0) != ahead.strips[0]
