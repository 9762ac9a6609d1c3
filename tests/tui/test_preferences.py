"""A user's settings in the app: keys, columns, colours, device; what is wrong is told."""

import ast
import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from textual.app import App
from textual.color import Color

import tui
from mi_crow.mechanistic.features.catalogue import DEFAULT
from mi_crow.store.settings import UserSettings
from mi_crow.store.settings_file import SettingsText
from mi_crow.store.workspace import Workspace
from tests.helpers.index_fixture import make_index
from tests.tui.conftest import NOW, add_run
from tests.tui.driving import notices, press, screen_text, settle
from tui.actions import ACTIONS
from tui.app import MiCrowApp
from tui.preferences.keymap import KeyMap, key_named, read_keymap
from tui.preferences.preferences import Preferences, all_mistakes
from tui.remote.offer import offer
from tui.state import SavedState, StateFile
from tui.themes.named import KNOWN, OWN, theme
from tui.themes.readable import HEAT_STEPS, READABLE, contrast
from tui.widgets.area import Area
from tui.widgets.lists.feature_table import FeatureTable
from tui.widgets.lists.row_list import RowList
from tui.widgets.token_heat import heat_mode


def preferences(text: str) -> Preferences:
    return Preferences.of(UserSettings.of(SettingsText(text)))


def started(workspace: Workspace, text: str = "", **more) -> MiCrowApp:
    return MiCrowApp(workspace, preferences=preferences(text), **more)


# Keys.


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("?", "question_mark"),
        ("question_mark", "question_mark"),
        ("G", "G"),
        ("ctrl+r", "ctrl+r"),
        ("alt++", "alt+plus"),
        ("+", "plus"),
        ("f12", "f12"),
        (",", "comma"),
        ("é", "é"),
    ],
)
def test_a_key_is_written_as_it_looks_or_by_its_name(word: str, key: str):
    assert key_named(word) == key


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"runs.logs": ["f5"]}, "action 'runs.logs' is not known; there is runs.log"),
        ({"runs.log": ["F55"]}, "key 'F55' is not known"),
        ({"runs.log": ["hyperctrl+a"]}, "before + use one of ctrl, alt"),
        ({"runs.log": ["c"]}, "runs.log cannot be c, the key of runs.cancel"),
        ({"runs.log": ["j"]}, "runs.log cannot be j, the key of list.down"),
        ({"runs.log": ["?"]}, "runs.log cannot be ?, the key of app.help"),
        # Not on the same screen, but one letter has one meaning.
        ({"runs.log": ["s"]}, "runs.log cannot be s, the key of features.steer"),
        ({"runs.log": ["tab"]}, "runs.log cannot be tab, which goes to the next pane"),
        ({"app.escape": ["f5"]}, "app.escape keeps its key"),
        ({"popup.yes": ["n"]}, "popup.yes cannot be n, the key of popup.no"),
        ({"app.palette": ["y"]}, "app.palette cannot be y"),
        ({"new.train": ["j"]}, "new.train cannot be j, the key of list.down"),
        ({"runs.log": ["f5"], "runs.note": ["f5"]}, "runs.note cannot be f5, the key of runs.log"),
    ],
)
def test_a_key_that_is_taken_is_refused_and_named(asked, says: str):
    keymap = read_keymap(asked)
    (sentence,) = keymap.mistakes.values()
    assert says in sentence


def test_two_actions_can_change_their_keys_with_each_other():
    keymap = read_keymap({"runs.log": ["c"], "runs.cancel": ["f5"], "steer.cancel": ["f5"]})
    assert not keymap.mistakes
    # The log wanted the key that cancel has again.
    keymap = read_keymap({"runs.log": ["c"], "runs.cancel": ["?"]})
    assert keymap.mistakes.keys() == {"runs.log", "runs.cancel"}
    assert not keymap.keys


def test_an_action_may_share_a_key_with_what_means_the_same():
    assert not read_keymap({"concepts.steer": ["f6"], "features.steer": ["f6"]}).mistakes


def test_the_table_of_actions_passes_as_a_key_map():
    everything = {
        action.id: KeyMap({}, {}).of(action)
        for action in ACTIONS
        if action.scope in ("runs", "features", "inspect", "steer", "concepts", "control")
    }
    assert not read_keymap(everything).mistakes


async def test_the_users_keys_work_and_are_shown_everywhere(app_workspace: Workspace):
    text = '[keys]\n"runs.log" = "f5"\n"app.themes" = "f9"\n"runs.note" = []\napp.help = "f1"\n'
    async with started(app_workspace, text).run_test(size=(120, 40)) as pilot:
        pilot.app.screen.query_one("#list-jobs", RowList).focus()
        await settle(pilot)
        footer = screen_text(pilot).splitlines()[-1]
        assert "f5 log" in footer
        assert "f1 keys" in footer
        assert "note" not in footer
        assert isinstance(pilot.app, MiCrowApp)
        listed = {row["action"]: row["keys"] for row in offer(pilot.app)["actions"]}
        assert (listed["runs.log"], listed["runs.note"]) == ("f5", "")
        await press(pilot, "e")  # not the note's key any more
        assert len(pilot.app.screen_stack) == 1
        await press(pilot, "f1")
        assert "Show the log of the selected job" in screen_text(pilot)
        assert "f5 " in screen_text(pilot)
        assert "no-key" not in screen_text(pilot)
        await press(pilot, "escape", "colon", *"choose", "space", *"a", "space", *"theme")
        assert "f9" in screen_text(pilot)
        await press(pilot, "escape", "f9")
        assert "paper" in screen_text(pilot)


@pytest.mark.slow
async def test_sentences_name_the_users_keys(empty_workspace: Workspace):
    text = """[keys]
"app.runs" = "f1"
"runs.new" = []
"inspect.run" = "f2"
"steer.run" = "f2"
"control.measure" = "f2"
"app.messages" = "f3"
"list.open" = "f4"
"""
    add_run(empty_workspace, "demo", "sample", NOW)
    async with started(empty_workspace).run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert "none yet: n t trains one" in screen_text(pilot)
        await press(pilot, "3")
        assert "Run  ctrl+r" in screen_text(pilot)
        pilot.app.prefer(preferences(text))  # type: ignore[attr-defined]
        await settle(pilot)
        assert "Run  f2" in screen_text(pilot)
        assert "No SAE yet: f1 goes to Runs, where :new starts the demo" in screen_text(pilot)
        assert " f1 Runs  2 Features" in screen_text(pilot)
        await press(pilot, "2")
        assert "f1   Runs, where :new starts" in screen_text(pilot)
        await press(pilot, "f1")
        assert "none yet: :new t trains one" in screen_text(pilot)
        assert "f4 trains an SAE on it" in screen_text(pilot)
        await press(pilot, "question_mark")
        assert "New (:new)" in screen_text(pilot)
    async with started(empty_workspace).run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert "none yet: n t trains one" in screen_text(pilot)


def test_no_sentence_has_a_key_of_its_own_in_it():
    """A key with what it does, as in `n adds one`: keys come from the key map. Esc is nobody's to
    change, and enter in a field belongs to the field."""
    named = re.compile(
        r"(?:^|[;:,.(] ?| where )(?:[B-HJ-Zb-z=!+]|ctrl\+[a-z]|space|n [a-z]) [a-z]{3,}s\b"
    )
    found = []
    for path in Path(tui.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
                continue
            if "\n" not in node.value and named.search(node.value):
                found.append(f"{path.name}:{node.lineno}: {node.value}")
    assert not found


@pytest.mark.slow
async def test_a_key_for_the_palette_can_be_typed_into_a_field(app_workspace: Workspace):
    async with started(app_workspace, '[keys]\n"app.palette" = ["&"]\n').run_test() as pilot:
        await press(pilot, "3")
        text = pilot.app.screen.query_one("#inspect-text", Area)
        text.focus()
        await press(pilot, "ampersand")
        assert text.text == "&"
        await press(pilot, "escape", "ampersand")
        assert len(pilot.app.screen_stack) == 2


# What is wrong.


@pytest.mark.slow
async def test_mistakes_are_told_and_the_rest_holds(app_workspace: Workspace):
    text = 'theme = "papr"\n[keys]\nruns.log = "c"\napp.help = "f1"\n'
    async with started(app_workspace, text).run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert "line 1: theme 'papr' is not known" in notices(pilot)
        assert "line 3: runs.log cannot be c" in notices(pilot)
        assert pilot.app.theme == "crow"
        assert "f1 keys" in screen_text(pilot).splitlines()[-1]
        await press(pilot, "exclamation_mark")
        assert "runs.log cannot be c" in screen_text(pilot)


async def test_many_mistakes_do_not_cover_the_screen(empty_workspace: Workspace, tmp_path: Path):
    text = 'theme = "papr"\ndevice = "tpu"\n[keys]\nruns.log = "c"\n'
    settings = UserSettings.of(SettingsText(text, tmp_path / "config.toml"))
    wanted = Preferences.of(settings)
    wanted = replace(wanted, mistakes=all_mistakes(settings, wanted))
    async with MiCrowApp(empty_workspace, preferences=wanted).run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert notices(pilot) == "3 mistakes in your settings; ! lists them"
        await press(pilot, "exclamation_mark")
        listed = screen_text(pilot)
        for said in ("line 1: theme 'papr' is", "line 2: device 'tpu' is", "line 4: runs.log can"):
            assert f"config.toml, {said}" in listed


def test_without_a_config_file_everything_is_as_in_the_table():
    found = preferences("")
    assert found == Preferences()
    assert found.columns == DEFAULT
    assert not found.keymap.as_textual()


# Theme and columns: whichever was changed last holds.


@pytest.mark.slow
async def test_a_theme_of_the_settings_holds_until_another_is_chosen(empty_workspace: Workspace):
    file = StateFile(empty_workspace.root)

    async def shown(text: str, choose: str = "") -> str:
        app = started(empty_workspace, text, saved=file.read(), state_file=file)
        async with app.run_test() as pilot:
            await settle(pilot)
            found = app.theme
            if choose:
                app.theme = choose
            app.exit()
        return found

    assert await shown('theme = "paper"', choose="contrast") == "paper"
    assert await shown('theme = "paper"') == "contrast"
    assert await shown('theme = "nord"') == "nord"


@pytest.mark.slow
async def test_the_columns_of_the_settings_are_those_of_a_new_table(empty_workspace: Workspace):
    make_index(empty_workspace, "one")
    file = StateFile(empty_workspace.root)
    text = '[columns]\nfeatures = ["density", "max"]\n'
    app = started(empty_workspace, text, sae_id="one", state_file=file)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert app.screen.query_one(FeatureTable).columns == ("feature", "density", "max")
        await press(pilot, "vertical_line", "j", "space", "enter")  # without the density
        assert app.screen.query_one(FeatureTable).columns == ("feature", "max")
        await press(pilot, "vertical_line", "D", "enter")
        assert app.screen.query_one(FeatureTable).columns == ("feature", "density", "max")
        app.exit()
    newer = '[columns]\nfeatures = ["fires"]\n'
    async with started(empty_workspace, newer, saved=file.read()).run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert pilot.app.screen.query_one(FeatureTable).columns == ("feature", "fires")


# Colours.


@pytest.mark.parametrize("name", list(OWN))
@pytest.mark.parametrize("ends", [("#ff0000", "#00ff00"), ("#000000", "#ffffff")])
def test_any_colours_of_the_ramp_are_readable(name: str, ends: tuple[str, ...]):
    found = theme(name, ends).variables
    for step in range(1, HEAT_STEPS + 1):
        ground, text = Color.parse(found[f"heat-{step}"]), Color.parse(found[f"heat-{step}-text"])
        assert contrast(ground, text) >= READABLE - 0.05
    assert found["heat-1"] != theme(name).variables["heat-1"]


async def test_the_ramp_of_dark_themes_leaves_light_ones_alone(empty_workspace: Workspace):
    text = '[heat]\ndark = ["#112233", "#ffeeaa"]\n'
    async with started(empty_workspace, text).run_test() as pilot:
        assert pilot.app.theme_variables["heat-1"].lower() == "#112233"
        pilot.app.theme = "paper"
        await settle(pilot)
        assert pilot.app.theme_variables["heat-1"] == theme("paper").variables["heat-1"]


def few(app: App[None]) -> set[str]:
    """The colours that are drawn, by name."""
    strips = app.screen._compositor.render_strips()
    styles = [segment.style for strip in strips for segment in strip if segment.style]
    colours = [colour for style in styles for colour in (style.color, style.bgcolor) if colour]
    return {colour.name for colour in colours}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["crow", "paper"])
async def test_sixteen_colours_are_those_of_the_terminal(app_workspace: Workspace, name: str):
    app = started(app_workspace, f'theme = "{name}"', few_colours=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "j")
        assert app.theme == name  # what is saved
        assert app.current_theme.dark == KNOWN[name].dark
        assert heat_mode(app) == "attributes"
        assert not {colour for colour in few(app) if colour.startswith("#")}


@pytest.mark.slow
@pytest.mark.parametrize("focused", [True, False])
async def test_the_cursor_is_seen_without_colours(
    app_workspace: Workspace, monkeypatch: pytest.MonkeyPatch, focused: bool
):
    monkeypatch.setenv("NO_COLOR", "1")
    app = started(app_workspace, few_colours=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "j")
        rows = app.screen.query_one("#list-runs", RowList)
        rows.focus() if focused else app.screen.query_one("#list-saes", RowList).focus()
        await settle(pilot)
        assert few(app) <= {"default"}
        y = rows.region.y + rows.cursor
        line = app.screen._compositor.render_strips()[y].crop(rows.region.x, rows.region.right - 1)
        styles = [part.style for part in line if part.text.strip() and part.style]
        assert styles
        assert all(style.reverse if focused else style.bold for style in styles)


# Editing in the app.


async def test_settings_edited_in_the_app_hold_at_once(
    app_workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    make_index(app_workspace, "one")
    new = """theme = "paper"
device = "cpu"
keys."app.quit" = "f10"
columns.features = ["fires"]
"""
    script = tmp_path / "editor"
    script.write_text(f"#!/bin/sh\ncat > \"$1\" <<'X'\n{new}X\n")
    script.chmod(0o755)
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", str(script))
    app = started(app_workspace, sae_id="one")
    monkeypatch.setattr(app, "suspend", nullcontext)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await app.run_action("settings")
        await settle(pilot)
        assert app.theme == "paper"
        assert app.context.device == "cpu"
        assert "f10 quit" in screen_text(pilot).splitlines()[-1]
        assert app.screen.query_one(FeatureTable).columns == ("feature", "fires")
        new_mistake = script.read_text().replace("paper", "papr")
        script.write_text(new_mistake)
        await app.run_action("settings")
        await settle(pilot)
        assert "line 1: theme 'papr' is not known" in notices(pilot)
        assert app.theme == "paper"


# The device.


async def test_a_model_is_loaded_where_the_settings_say(app_workspace: Workspace):
    from tests.tui.stand_ins import ScriptedSession

    app = started(app_workspace, 'device = "cpu"')
    async with app.run_test():
        session = ScriptedSession()
        app.context._session = session  # type: ignore[assignment]
        app.context.ready_session("demo-topk")
        assert session.asked == [("load", {"sae_id": "demo-topk", "device": "cpu"})]


def test_a_saved_state_of_an_earlier_version_is_read(empty_workspace: Workspace):
    file = StateFile(empty_workspace.root)
    file.write(SavedState(theme="paper"))
    assert file.read().theme_set == ""
