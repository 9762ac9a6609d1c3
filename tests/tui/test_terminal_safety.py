"""No text of a workspace is obeyed by the terminal, on any screen, nor by what pastes a copy."""

import base64
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from mi_crow.store.workspace import Workspace
from tests.helpers.awkward_index import FEATURE, SAE
from tests.helpers.hostile_workspace import (
    ATTACK,
    add_hostile_jobs,
    make_hostile_workspace,
    obeyed,
)
from tests.helpers.jobs_fixture import FakeJobs
from tests.helpers.pseudo_terminal import (
    PROGRAM,
    PseudoTerminal,
    colours,
    copied,
    foreign_sequences,
)
from tests.tui.driving import press, screen_text, settle
from tui.widgets.area import Area
from tui.widgets.field import Field

RunApp = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture
def hostile(empty_workspace: Workspace, fake_jobs: FakeJobs) -> Workspace:
    make_hostile_workspace(empty_workspace)
    add_hostile_jobs(fake_jobs)
    return empty_workspace


@pytest.mark.slow
def test_every_sequence_on_the_wire_is_the_apps_own(hostile: Workspace):
    command = (*PROGRAM, "--workspace", str(hostile.root))
    with PseudoTerminal(command, columns=200, rows=60) as terminal:
        terminal.wait_for(SAE, "2")
        terminal.settle(1.0)
        # Features: a name's field, the filter, the examples, what is copied; Inspect by `i`.
        terminal.press("2", "#", *str(FEATURE), "\r", "y", "t", "\x1b", "/", "R", "\x1b", "i")
        terminal.press("\x1b", "y", "2", "\r", "j", "j", "\t", "\t", "s", "\x1b")
        for screen in "143561":
            terminal.press(screen, "j", "j", "y", "\r", "\x1b", "?", "\x1b", ":", "\x1b")
        for key in "ontrvwm/":  # Concepts: order, note, name, and its other prompts
            terminal.press("5", key, "\x1b", "\x1b")
        for key in ("n", "t", "b", "e", "x", "l"):  # Runs: every form and the log, over each list
            terminal.press("1", "g", "j", "j", "j", key, "\x1b", "\x1b")
        terminal.press("q")
        assert terminal.wait_for_end() == 0
    assert foreign_sequences(terminal.output) == []
    texts = [base64.b64decode(text).decode() for text in copied(terminal.output)]
    assert texts
    assert obeyed("".join(texts).replace("\t", "")) == []


async def test_a_name_in_a_field_is_shown_and_kept_as_it_is(run_app: RunApp, hostile: Workspace):
    async with run_app(hostile, size=(120, 40), sae_id=SAE) as pilot:
        await press(pilot, "2", "number_sign", *str(FEATURE), "enter", "t")
        fields = [one for one in pilot.app.screen.query(Field) if "PWNTITLE" in one.value]
        assert fields
        assert "\x1b]0;PWNTITLE\x07" in fields[0].value
        assert "PWNTITLE␇" in screen_text(pilot)
        assert obeyed(screen_text(pilot)) == []
        before = fields[0].value
        await press(pilot, "end", "x", "enter")
        names = {c.name for c in pilot.app.context.annotations.concepts(SAE)}
        assert f"{before}x" in names


@pytest.mark.slow
async def test_a_text_in_an_area_wraps_by_what_it_shows(run_app: RunApp, hostile: Workspace):
    async with run_app(hostile, size=(80, 24), sae_id=SAE) as pilot:
        await press(pilot, "3")
        area = pilot.app.screen.query_one(Area)
        area.text = text = f"{ATTACK} the end"
        area.move_cursor((0, 3))
        await settle(pilot)
        assert area.text == text
        assert "PWNTITLE␇" in screen_text(pilot)
        assert "the end" in screen_text(pilot)
        assert area.get_column_width(0, len(text)) == len(text)
        assert obeyed(screen_text(pilot)) == []


@pytest.mark.slow
async def test_all_screens_popups_and_notices_show_what_would_be_obeyed(
    run_app: RunApp, hostile: Workspace
):
    async with run_app(hostile, size=(120, 40), sae_id=SAE) as pilot:
        keys = ["2", "number_sign", *str(FEATURE), "enter", "slash", "escape"]
        keys += ["4", "5", "j", "n", "escape", "t", "escape", "slash", "escape", "6", "1"]
        keys += ["j", "j", "j", "l", "escape", "j", "l", "escape", "n", "escape", "t", "escape"]
        for key in keys:
            await press(pilot, key)
            assert obeyed(screen_text(pilot)) == [], key
        for severity in ("information", "warning", "error"):
            pilot.app.notify(ATTACK, title=ATTACK, severity=severity)
        await settle(pilot)
        assert "PWNTITLE" in screen_text(pilot)
        assert obeyed(screen_text(pilot)) == []


@pytest.mark.parametrize("keys", [("5", "j", "y"), ("2", "y")], ids=["concept", "feature"])
async def test_what_y_copies_does_nothing_where_it_is_pasted(
    run_app: RunApp, hostile: Workspace, keys: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("TMUX", raising=False)
    async with run_app(hostile, size=(120, 40), sae_id=SAE) as pilot:
        await press(pilot, *keys)
        text = pilot.app.clipboard
        assert text
        assert obeyed(text.replace("\t", "")) == []
        pilot.app.copy_to_clipboard(f"two\r\nlines{ATTACK}")  # as a field's own copy does
        assert pilot.app.clipboard.startswith("two\nlines")
        assert obeyed(pilot.app.clipboard) == []


@pytest.mark.slow
@pytest.mark.parametrize("term", ["xterm-256color", "xterm"])
def test_no_colour_is_sent_where_none_is_wanted(indexed: Workspace, term: str):
    command = (*PROGRAM, "--workspace", str(indexed.root))
    environment = {"NO_COLOR": "1", "TERM": term, "COLORTERM": "truecolor"}
    with PseudoTerminal(command, environment=environment) as terminal:
        terminal.wait_for("SAEs")
        terminal.press("j", "2", "j", "\r", "m", "\x1b", "3", "4", "5", "6", "1")
        terminal.press("n", "c", "x", "\x1b", "\x1b", "\x1b", "?", "\x1b", ":", "\x1b", "!", "\x1b")
        assert b"Capture activations" in terminal.output
        assert colours(terminal.output) == set()
        assert b"\x1b[7m" in terminal.output or b";7m" in terminal.output
