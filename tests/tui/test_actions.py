"""The action table is the one source of bindings, help, palette and key map."""

from importlib import import_module

import pytest
from textual.binding import Binding

from tests.tui.driving import press, screen_text
from tui.action_tables.writing import ANNOTATIONS, FILES
from tui.actions import (
    ACTIONS,
    BY_ID,
    SCREENS,
    Action,
    bindings,
    key_label,
    keys_label,
    scope_actions,
)
from tui.app import MiCrowApp
from tui.key_meanings import ANSWERS, MEANINGS
from tui.screens.inspect.differences import DifferencesPopup
from tui.screens.inspect.popups import CausesPopup, GridPopup
from tui.screens.inspect.saved import InspectionsPopup
from tui.screens.inspect.sources import SourceMenu
from tui.screens.runs.new_menu import NewMenu
from tui.widgets.forms.line import SectionHeading
from tui.widgets.forms.popup import FormPopup
from tui.widgets.frame.help import HelpScroll, help_blocks, screen_scopes
from tui.widgets.frame.palette import offered
from tui.widgets.frame.popup import Confirm
from tui.widgets.lists.row_list import RowList
from tui.widgets.lists.sorted_list import SortedList
from tui.widgets.map.view import MapView


def owner(scope: str) -> type:
    """The class that does the actions of a scope."""
    if scope in SCREENS:
        return getattr(import_module(f"tui.screens.{scope}.screen"), f"{scope.title()}Screen")
    owners = {
        "app": MiCrowApp,
        "list": RowList,
        "sorting": SortedList,
        "scroll": HelpScroll,
        "popup": Confirm,
        "map": MapView,
        "new": NewMenu,
        "form": FormPopup,
        "section": SectionHeading,
        "causes": CausesPopup,
        "grid": GridPopup,
        "differences": DifferencesPopup,
        "inspections": InspectionsPopup,
        "sources": SourceMenu,
    }
    return owners[scope]


def test_ids_are_unique():
    assert len(BY_ID) == len(ACTIONS)


@pytest.mark.parametrize(
    "scope",
    [
        "app",
        "list",
        "sorting",
        "scroll",
        "popup",
        "form",
        "section",
        "new",
        "map",
        "causes",
        "grid",
        "differences",
        "sources",
        *SCREENS,
    ],
)
def test_every_action_is_done_by_a_method_of_its_scope(scope: str):
    for action in scope_actions(scope):
        assert hasattr(owner(scope), "action_" + action.action.partition("(")[0]), action.id


def key_names(action: Action) -> list[str]:
    """The keys of an action, as Textual calls them."""
    if not action.keys:
        return []
    made = Binding.make_bindings([Binding(action.keys, action.action)])
    return [key.key for key in made]


def test_a_key_means_one_thing_on_all_screens():
    for action in ACTIONS:
        name = action.id.partition(".")[2]
        digit = action.keys.isdecimal() and action.scope == "app"
        if action.scope in ANSWERS or digit:
            continue
        for key in key_names(action):
            assert key in MEANINGS, f"{action.id}: say in MEANINGS what {key} means"
            meaning = MEANINGS[key]
            assert name in meaning.names, f"{action.id}: {key} is for {meaning.words}"


@pytest.mark.parametrize("scope", SCREENS)
def test_no_two_actions_of_a_screen_share_a_key(scope: str):
    taken: dict[str, str] = {}
    sorting = ("sorting",) if scope in ("runs", "concepts") else ()
    for part in (scope, "list", *sorting, "app"):
        for action in scope_actions(part):
            for key in key_names(action):
                # A screen may copy in its own way; the app copies on all others.
                if part == "app" and taken.get(key, "").endswith(action.id.removeprefix("app")):
                    continue
                assert key not in taken, f"{action.id} and {taken[key]} are both {key}"
                taken[key] = action.id


@pytest.mark.parametrize("scope", ANSWERS)
def test_an_answer_has_a_key_of_its_own(scope: str):
    keys = [key for action in scope_actions(scope) for key in key_names(action)]
    assert len(keys) == len(set(keys))


def test_every_way_to_start_something_is_in_the_menu():
    for action in scope_actions("new"):
        assert "runs." + action.id.partition(".")[2] in BY_ID


def test_every_binding_carries_its_id_and_help():
    for action in ACTIONS:
        for binding in bindings(action.scope, action.id.partition(".")[2]):
            assert isinstance(binding, Binding)
            assert binding.id == action.id
            assert binding.tooltip == action.help


def test_no_action_needs_a_key_that_terminals_and_multiplexers_keep():
    kept = {"ctrl+b", "ctrl+a", "ctrl+s", "ctrl+q", "ctrl+z", "ctrl+c"}
    for action in ACTIONS:
        keys = {key.strip() for key in action.keys.split(",")}
        if action.id != "app.suspend":  # which is what a shell keeps ctrl+z for
            assert not keys & kept, action.id
        assert "ctrl+enter" not in keys, action.id


def test_keys_are_written_as_people_read_them():
    assert key_label("question_mark") == "?"
    assert key_label("ctrl+r") == "ctrl+r"
    assert keys_label("j,down") == "j ↓"


def test_help_names_every_key_of_a_screen_and_follows_the_key_map():
    blocks = help_blocks(screen_scopes("runs"), {"runs.log": "f5"})
    text = "\n".join(block.plain for block in blocks)
    for action in (*scope_actions("runs"), *scope_actions("app")):
        if action.keys:
            assert action.help in text
    assert "f5 " in text


async def test_palette_offers_every_action_of_every_screen(app_workspace, run_app):
    async with run_app(app_workspace) as pilot:
        ids = {action.id for action in offered(pilot.app.screen)}
        for scope in ("app", "list", *SCREENS):
            expected = {action.id for action in scope_actions(scope)}
            assert expected - ids <= {"app.palette", "app.escape"}


async def test_a_key_map_moves_an_action_to_another_key(app_workspace, run_app):
    async with run_app(app_workspace, size=(80, 40)) as pilot:
        pilot.app.set_keymap({"app.steer": "f4", "app.help": "f1"})
        await press(pilot, "f4")
        assert pilot.app.current_mode == "steer"
        await press(pilot, "4", "f1", "G")
        assert "f4" in screen_text(pilot)


def test_what_is_said_to_write_is_in_the_table():
    assert set(BY_ID) >= FILES | ANNOTATIONS
    assert not FILES & ANNOTATIONS
