"""The frame: six screens that keep their state, header, footer, palette, help, escape, themes."""

import pytest
from textual.widgets import TextArea

from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.store.workspace import Workspace
from tests.tui.driving import press, screen_text, settle
from tui import messages
from tui.actions import SCREENS
from tui.annotate import write
from tui.messages import SessionState
from tui.screens.base import MiCrowScreen
from tui.widgets.forms.line import FormInput
from tui.widgets.frame.help import HelpPopup
from tui.widgets.frame.palette import PaletteField, PalettePopup
from tui.widgets.lists.row_list import RowList


async def test_a_digit_opens_its_screen(app_workspace, run_app):
    async with run_app(app_workspace) as pilot:
        for digit, name in enumerate(SCREENS, start=1):
            await press(pilot, str(digit))
            assert pilot.app.current_mode == name
            lines = screen_text(pilot).splitlines()
            assert all(title.title() in lines[1] for title in SCREENS)
            if isinstance(pilot.app.focused, TextArea):  # Inspect waits for a text: leave it first
                await press(pilot, "escape")


async def test_a_screen_keeps_its_state(app_workspace, run_app):
    async with run_app(app_workspace) as pilot:
        await press(pilot, "j", "6", "1")
        assert pilot.app.screen.query_one("#list-runs", RowList).key == "demo"


async def test_escape_stops_then_closes_then_leaves_the_field_then_does_nothing(
    app_workspace, run_app, monkeypatch
):
    running = [True]

    def stop(_: MiCrowScreen) -> bool:
        was, running[0] = running[0], False
        return was

    monkeypatch.setattr(MiCrowScreen, "stop_running", stop)
    async with run_app(app_workspace) as pilot:
        await press(pilot, "6", "e")
        assert pilot.app.screen.focused.id == "probe-text"
        await press(pilot, "ctrl+p", "escape")
        assert isinstance(pilot.app.screen, PalettePopup)  # the first one stopped what ran
        assert not running[0]
        await press(pilot, "escape")
        assert not isinstance(pilot.app.screen, PalettePopup)
        assert pilot.app.screen.focused.id == "probe-text"
        await press(pilot, "escape")
        assert pilot.app.screen.focused.id == "layers"
        assert pilot.app.current_mode == "control"
        await press(pilot, "escape")
        assert pilot.app.current_mode == "control"


async def test_what_is_slow_to_stop_keeps_no_popup_open(app_workspace, run_app, monkeypatch):
    monkeypatch.setattr(MiCrowScreen, "stop_running", lambda _: True)  # a model that still loads
    async with run_app(app_workspace) as pilot:
        await press(pilot, "question_mark", "escape", "escape")
        assert isinstance(pilot.app.screen, MiCrowScreen)


async def test_typing_goes_to_a_field_that_has_the_focus(app_workspace, run_app):
    async with run_app(app_workspace) as pilot:
        await press(pilot, "6", "e", "1", "q", "colon")
        assert pilot.app.current_mode == "control"
        assert pilot.app.screen.focused.text.startswith("1q:")


async def test_the_palette_finds_an_action_and_does_it_on_its_screen(app_workspace, run_app):
    async with run_app(app_workspace) as pilot:
        await press(pilot, "6", "colon")
        assert isinstance(pilot.app.screen.focused, PaletteField)
        await press(pilot, *"capture activations", "enter")
        assert pilot.app.current_mode == "runs"
        assert isinstance(pilot.app.screen.focused, FormInput)


@pytest.mark.slow
async def test_the_palette_finds_words_before_letters_in_the_middle(app_workspace, run_app):
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        await press(pilot, ":", *"report")
        rows = pilot.app.screen.query_one("#palette-list", RowList)
        assert rows.key == "features.export"
        await press(pilot, "ctrl+u", *"port")
        texts = [row.cells[0].text.lower() for row in rows.rows]
        assert all("port" in text for text in texts[:4])
        await press(pilot, "ctrl+u", *"mark")
        assert rows.rows[0].cells[0].text.startswith("Mark")


async def test_the_palette_moves_in_its_list_while_typing_goes_on(app_workspace, run_app):
    async with run_app(app_workspace) as pilot:
        await press(pilot, "ctrl+p", *"go to", "down", "enter")
        assert pilot.app.current_mode == "features"


@pytest.mark.slow
async def test_a_palette_that_is_left_does_nothing(app_workspace, run_app):
    async with run_app(app_workspace) as pilot:
        await press(pilot, "colon", *"quit", "escape")
        assert pilot.app.is_running
        assert pilot.app.current_mode == "runs"


async def test_help_shows_the_keys_and_closes(app_workspace, run_app):
    async with run_app(app_workspace, size=(80, 50)) as pilot:
        await press(pilot, "question_mark")
        assert isinstance(pilot.app.screen, HelpPopup)
        assert "Capture activations of a model" in screen_text(pilot)
        await press(pilot, "escape")
        assert not isinstance(pilot.app.screen, HelpPopup)


async def test_the_footer_shows_only_keys_that_work_here(app_workspace, run_app):
    async with run_app(app_workspace) as pilot:
        footer = screen_text(pilot).splitlines()[-1]
        assert "n new" in footer
        assert "cancel" not in footer  # no job is selected
        await press(pilot, "6", "e")
        footer = screen_text(pilot).splitlines()[-1]
        assert "ctrl+r measure" in footer
        assert "q quit" not in footer  # a q is typed now


@pytest.mark.slow
async def test_a_click_on_a_tab_opens_its_screen(app_workspace, run_app):
    async with run_app(app_workspace) as pilot:
        row = screen_text(pilot).splitlines()[1]
        await pilot.click(offset=(row.index("Control") + 2, 1))
        await settle(pilot)
        assert pilot.app.current_mode == "control"


async def test_the_header_names_model_sae_and_the_running_job(app_workspace, run_app):
    async with run_app(app_workspace) as pilot:
        line = screen_text(pilot).splitlines()[0]
        assert "sample · demo-topk" in line or "SmolLM2-135M-Instruct" in line
        assert "train 41%" in line


@pytest.mark.slow
async def test_the_header_shows_what_the_model_session_does(
    app_workspace, run_app, monkeypatch: pytest.MonkeyPatch
):
    states = {
        "loading model": SessionState("loading", "demo-topk"),
        "cuda:0": SessionState("ready", "demo-topk", "sample", "model.layers.2", "cuda:0"),
        "session ended": SessionState("died", "demo-topk", detail="x"),
    }
    async with run_app(app_workspace) as pilot:
        # No process stands behind these states, and a look at the workspace would notice it.
        monkeypatch.setattr(pilot.app.context, "check_session", lambda: None)
        for words, state in states.items():
            pilot.app.context._set_session(state)
            await pilot.pause()
            assert words in screen_text(pilot).splitlines()[0]


async def test_q_quits(empty_workspace: Workspace, run_app):
    async with run_app(empty_workspace) as pilot:
        await pilot.press("q")
        assert pilot.app.return_code == 0


@pytest.mark.slow
async def test_an_open_index_that_is_rebuilt_is_opened_again(app_workspace, run_app):
    class Store:
        opened = 0

        def changed_on_disk(self) -> bool:
            return True

        def rest(self) -> None: ...

        def meta(self):
            return type("Meta", (), {"sae_id": "demo-topk"})()

    async with run_app(app_workspace) as pilot:
        asked = []
        pilot.app.context.features = Store()
        pilot.app.context.read_index = asked.append
        pilot.app.look_now()
        await settle(pilot)
        assert asked[0] == "demo-topk"


async def test_a_change_made_here_is_read_once(app_workspace, run_app):
    def tag(annotations: Annotations) -> str:
        annotations.set_concept("demo-topk", 3, "sails")
        return "tagged"

    async with run_app(app_workspace, sae_id="demo-topk") as pilot:
        app, rounds = pilot.app, []
        publish = app.context.publish

        def counted(message):
            if isinstance(message, messages.ConceptsChanged):
                rounds.append(message)
            publish(message)

        app.context.publish = counted
        for expected in (1, 2):
            write(app, tag)
            await settle(pilot)
            for _ in range(2):
                app.look_now()
                await settle(pilot)
            assert len(rounds) == expected
        Annotations(app_workspace.annotations_path).set_concept("demo-topk", 3, "masts")
        app.look_now()
        await settle(pilot)
        assert len(rounds) == 3
