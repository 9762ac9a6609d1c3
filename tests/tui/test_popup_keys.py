"""What the app's own keys do over what is open on a screen, and what escape says there."""

import pytest
from textual.pilot import Pilot

from tests.tui.driving import notices, press, screen_text, select, settle
from tui.actions import BY_ID
from tui.app import MiCrowApp
from tui.screens.base import MiCrowScreen
from tui.screens.features.map_popup import MapPopup
from tui.screens.picture import PicturePopup
from tui.widgets.forms.popup import FormPopup
from tui.widgets.frame.help import HelpPopup
from tui.widgets.frame.jump import JumpPopup
from tui.widgets.frame.message_list import MessagesPopup
from tui.widgets.frame.palette import PalettePopup, offered
from tui.widgets.frame.popup import Confirm, Popup


def footer(pilot: Pilot) -> str:
    return screen_text(pilot).splitlines()[-1]


def over(pilot: Pilot) -> list[type]:
    """What is open over the screen, the lowest first."""
    return [type(one) for one in pilot.app.screen_stack[1:]]


async def test_the_palette_over_a_form_does_what_the_form_can_and_leaves_it_open(
    run_app, app_workspace
):
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        await press(pilot, "n", "c", *"gpt2", "escape", "escape", "escape", "n", "c")
        form = pilot.app.screen
        assert [action.id for action in offered(form)][:3] == [
            "form.submit",
            "form.copy",
            "form.anew",
        ]
        await press(pilot, "ctrl+p", *"features screen", "ctrl+u", *"go to features", "enter")
        assert (pilot.app.current_mode, over(pilot)) == ("features", [])
        await press(pilot, "1")
        assert pilot.app.screen is form
        assert "gpt2" in screen_text(pilot)
        await press(pilot, "ctrl+p", *"anew", "enter")
        assert over(pilot) == [FormPopup]
        assert "gpt2" not in screen_text(pilot)


async def test_enter_in_the_palette_over_a_question_does_not_say_yes(run_app, app_workspace):
    answers: list[bool | None] = []
    async with run_app(app_workspace) as pilot:
        pilot.app.push_screen(Confirm("Remove it?"), answers.append)
        await press(pilot, "colon", "enter")
        assert answers == [None]


async def test_help_over_a_popup_names_its_keys_and_those_of_the_app_that_act(open_index):
    async with open_index() as pilot:
        await press(pilot, "m", "question_mark")
        assert over(pilot) == [MapPopup, HelpPopup]
        text = screen_text(pilot)
        for name in ("map.mark", "popup.close", "app.messages", "app.palette"):
            assert BY_ID[name].help in text
        assert BY_ID["app.back"].help not in text
        await press(pilot, "question_mark", "escape", "colon", *"whole map", "enter")
        assert over(pilot) == [MapPopup]


@pytest.mark.slow
async def test_messages_open_over_a_form_and_lead_out_of_it(run_app, app_workspace, fake_jobs):
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        app = pilot.app
        assert isinstance(app, MiCrowApp)
        job = fake_jobs.add("running", "capture", name="more", done=1, total=2)
        app.look_now()
        await settle(pilot)
        fake_jobs.finish(job, {"run_id": "smol-l15", "tokens": 9, "documents": 1, "seconds": 1})
        app.look_now()
        await settle(pilot)
        await press(pilot, "n", "c", *"gpt2", "escape", "exclamation_mark")
        assert over(pilot) == [FormPopup, MessagesPopup]
        await press(pilot, "exclamation_mark", "g", "enter")
        assert over(pilot) == []
        assert app.screen.query_one("#list-runs").has_focus
        await press(pilot, "n", "c")
        assert "As it was left" in screen_text(pilot)


@pytest.mark.slow
async def test_jump_goes_from_field_to_field_of_a_form(run_app, app_workspace):
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        await press(pilot, "n", "c", *"x", "escape", "apostrophe")
        assert over(pilot) == [FormPopup, JumpPopup]
        await press(pilot, "a")
        assert over(pilot) == [FormPopup]
        assert pilot.app.screen.focused.id == "field-model-model"
        await press(pilot, "escape", "escape", "exclamation_mark", "apostrophe")
        assert over(pilot) == [MessagesPopup]
        assert "There is one pane here" in notices(pilot)


@pytest.mark.slow
async def test_a_form_says_what_escape_does_now(run_app, app_workspace):
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        await press(pilot, "n", "c")
        assert "esc close" in footer(pilot)
        await press(pilot, *"gp")
        assert "esc leave the field" in footer(pilot) or "esc close the list" in footer(pilot)
        await press(pilot, *"zzz")
        assert "esc leave the field" in footer(pilot)
        await press(pilot, "escape")
        assert "esc close" in footer(pilot)


async def test_how_to_leave_is_seen_on_the_smallest_terminal(run_app, app_workspace):
    async with run_app(app_workspace, size=(40, 10)) as pilot:
        await press(pilot, "n", "c", *"zzz")
        assert "esc leave the field" in footer(pilot)
        pilot.app.screen.leave()
        await press(pilot, "n", "c")
        assert "As it was left" in screen_text(pilot)
        assert "esc close" in footer(pilot)
        await press(pilot, "escape", "apostrophe")
        assert "esc closes" in footer(pilot)


async def test_the_footer_says_stop_while_escape_stops_what_runs(
    run_app, app_workspace, monkeypatch
):
    running = [True]
    monkeypatch.setattr(MiCrowScreen, "can_stop", property(lambda _: running[0]))

    def stop(_: MiCrowScreen) -> bool:
        return running[0]  # a model that takes its time to stop

    monkeypatch.setattr(MiCrowScreen, "stop_running", stop)
    async with run_app(app_workspace) as pilot:
        await press(pilot, "question_mark")
        assert "esc stop" in footer(pilot)
        running[0] = False
        pilot.app.screen_stack[0].work_changed()
        await settle(pilot)
        assert "esc close" in footer(pilot)
        running[0] = True
        pilot.app.screen_stack[0].work_changed()
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, Popup)
        assert "esc close" in footer(pilot)
        await press(pilot, "escape", "apostrophe")
        assert "esc stops" in screen_text(pilot)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["runs", "saes", "jobs"])
async def test_the_palette_opens_over_what_a_row_opens(run_app, app_workspace, name):
    async with run_app(app_workspace) as pilot:
        rows = pilot.app.screen.query_one(f"#list-{name}")
        await select(pilot, name, rows.rows[0].key)
        await press(pilot, "n" if name == "runs" else "l", "colon")
        assert isinstance(pilot.app.screen, PalettePopup)
        await press(pilot, "escape")


async def test_what_closes_under_others_closes_them_and_answers_once(run_app, app_workspace):
    answers: list[object] = []
    async with run_app(app_workspace) as pilot:
        app = pilot.app
        for ends in ("below", "twice"):
            question = Confirm("Remove it?")
            app.push_screen(question, answers.append)
            await press(pilot, "exclamation_mark", "ctrl+p")
            assert over(pilot) == [Confirm, MessagesPopup, PalettePopup]
            question.dismiss(True)
            if ends == "twice":
                question.dismiss(False)
            await settle(pilot)
            assert over(pilot) == []
        assert answers == [True, True]


async def test_what_ends_while_another_screen_is_shown_waits_for_its_own(run_app, app_workspace):
    answers: list[object] = []
    async with run_app(app_workspace) as pilot:
        question = Confirm("Remove it?")
        pilot.app.push_screen(question, answers.append)
        await pilot.app.go("control")
        await settle(pilot)
        question.dismiss(True)
        await settle(pilot)
        assert (pilot.app.current_mode, answers) == ("control", [])
        await press(pilot, "1")
        assert (pilot.app.current_mode, over(pilot), answers) == ("runs", [], [True])


async def test_of_palettes_and_pictures_one_is_open(run_app, app_workspace):
    async with run_app(app_workspace) as pilot:
        await press(pilot, "ctrl+p", "f8", "ctrl+p", "f8")
        assert over(pilot) == [PalettePopup, PicturePopup]
