"""Where a feature would stand and none is chosen: what can be done, and features to begin with."""

import pytest

from mi_crow.mechanistic.features.records import FeatureRow
from tests.tui.driving import press, screen_text, settle
from tests.tui.stand_ins import give_index
from tui.actions import scope_actions
from tui.preferences.key_words import speak_of
from tui.screens.beginnings import beginnings


def row(feature: int, concept: str | None, label: str | None = None) -> FeatureRow:
    return FeatureRow(feature, 10, 0.1, 2.0, 1.0, concept, label, 0.9 if label else None)


def test_features_fill_the_lines_below_the_actions():
    rows = [row(7, "rain"), *(row(number, None, "harbour") for number in range(100, 200))]
    lines = beginnings("steer", rows, 70, 40).plain.splitlines()
    assert len(lines) == 40
    assert max(map(len, lines)) <= 70
    assert any(line.startswith("#7 rain") for line in lines)
    assert any("0.90" in line for line in lines)
    low = beginnings("steer", rows, 70, 10).plain
    assert "Generate baseline" in low
    assert "#7" not in low


@pytest.mark.parametrize("screen", ["inspect", "steer", "concepts"])
@pytest.mark.parametrize("width", [78, 118, 198])
def test_what_can_be_done_is_said_in_whole_words(screen, width):
    text = beginnings(screen, [], width, 90).plain
    lines = text.splitlines()
    assert "…" not in text
    assert max(map(len, lines)) <= width
    actions = [action for action in scope_actions(screen) if action.keys]
    assert all(action.help in text for action in actions)
    assert (len(lines) - 1 < len(actions)) == (width > 78)


def test_the_keys_are_those_of_this_user():
    speak_of({"steer.new": "f3"})
    try:
        assert "f3 puts one on the stack" in beginnings("steer", [row(7, "rain")], 120, 40).plain
    finally:
        speak_of({})


async def test_steer_without_a_stack_offers_features(app_workspace, run_app):
    async with run_app(app_workspace, size=(160, 50), sae_id="demo-topk") as pilot:
        give_index(pilot.app)
        await settle(pilot)
        await press(pilot, "4")
        text = screen_text(pilot)
        assert "What can be done here" in text
        assert "Features to begin with" in text
