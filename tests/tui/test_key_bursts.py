"""Keys that come in one piece, as from a quick hand over a slow line or from a script."""

from itertools import count
from threading import Event

import pytest
from textual import events
from textual._xterm_parser import XTermParser
from textual.pilot import Pilot

from tests.tui.driving import notices, press, screen_text, settle, table
from tui.app import MiCrowApp
from tui.screens.features.screen import FeaturesScreen
from tui.terminal.bursts import Burst, BurstReader
from tui.terminal.driver import KeyParser
from tui.widgets.forms.line import FormInput
from tui.widgets.forms.popup import FormPopup
from tui.widgets.frame.palette import PalettePopup


async def burst(pilot: Pilot, typed: str) -> None:
    """What one read from the terminal gives, as the driver hands it on."""
    app, driver = pilot.app, pilot.app._driver
    assert isinstance(app, MiCrowApp)
    assert driver is not None
    for message in BurstReader().read(list(XTermParser().feed(typed)), 0.0):
        driver.process_message(message)
    await settle(pilot)
    while app.keys_act:
        await pilot.pause(0.001)
    await settle(pilot)


def search(pilot: Pilot) -> str:
    screen = pilot.app.screen
    assert isinstance(screen, FeaturesScreen)
    return screen._query.search


async def test_what_follows_a_filter_key_is_typed_into_the_filter(open_index):
    async with open_index() as pilot:
        await burst(pilot, "/harbour")
        assert pilot.app.screen.prompt.field.value == search(pilot) == "harbour"
        await burst(pilot, "\x15mast\rj")  # ctrl+u, another word, then a move in the list
        assert (search(pilot), pilot.app.focused) == ("mast", table(pilot))


@pytest.mark.slow
async def test_a_move_a_filter_and_a_jump_in_one_piece(open_index):
    async with open_index() as pilot:
        await burst(pilot, "jj/abc\r")
        assert (search(pilot), pilot.app.focused) == ("abc", table(pilot))
        await burst(pilot, "/\x15\r#7\r")
        assert search(pilot) == ""
        assert pilot.app.screen.open_feature == 7


@pytest.mark.slow
async def test_moves_wait_for_nothing_and_other_keys_for_them(open_index):
    async with open_index() as pilot:
        app, driver = pilot.app, pilot.app._driver
        assert isinstance(app, MiCrowApp)
        assert driver is not None
        while app.keys_act:
            await pilot.pause(0.001)
        for message in XTermParser().feed("jjjj"):
            driver.process_message(message)
        await pilot.pause()
        assert not app._keys_waiting
        await burst(pilot, "gjjj#12\rjj")
        assert pilot.app.screen.open_feature == 12


async def test_a_paste_goes_into_the_field_that_the_key_before_it_opened(open_index):
    async with open_index() as pilot:
        await burst(pilot, '/\x1b[200~on:"two words"\x1b[201~x')
        assert pilot.app.screen.prompt.field.value == 'on:"two words"x'


async def test_a_paste_of_several_lines_loses_none(open_index):
    async with open_index() as pilot:
        await burst(pilot, "/\x1b[200~\rharbour\r  at dawn\r\r\x1b[201~")
        assert pilot.app.screen.prompt.field.value == "harbour at dawn"
        await burst(pilot, "\x1b[200~\r\x1b[201~!")  # nothing but a line end
        assert pilot.app.screen.prompt.field.value == "harbour at dawn!"


async def test_a_paste_that_the_terminal_does_not_mark_is_no_keys(open_index):
    prose = "Quickly, the crew tagged 3 mice;\rthen xylophones quit. " * 40
    async with open_index() as pilot:
        await burst(pilot, prose)
        assert (pilot.app.current_mode, len(pilot.app.screen_stack)) == ("features", 1)
        assert notices(pilot).count("Pasted text needs a field") == 1
        await burst(pilot, f"\x1b[200~{prose}\x1b[201~")
        assert notices(pilot).count("nothing was done with it; / opens one") == 1
        await burst(pilot, "3")
        await burst(pilot, prose)
        assert "nothing was done with it; e opens one" in notices(pilot)
        await burst(pilot, "2")
        await burst(pilot, "/")
        await burst(pilot, prose)
        assert search(pilot).startswith("Quickly, the crew tagged 3 mice;")
        await burst(pilot, "\x15")
        await burst(pilot, "-".join(["harbour"] * 20) + "\r")
        assert pilot.app.focused is table(pilot)


def read(reader: BurstReader, typed: str, now: float) -> list[tuple[str, ...]]:
    """The keys that come of a piece, and how many of each burst."""
    found = reader.read(list(XTermParser().feed(typed)), now)
    return [
        ("burst", str(len(one.keys))) if isinstance(one, Burst) else (one.key,)
        for one in found
        if isinstance(one, Burst | events.Key)
    ]


def test_what_a_hand_or_a_script_sends_is_keys():
    reader = BurstReader()
    script = ":go to features\r/rain max>5\rjjjj" * 2
    assert len(read(reader, script, 0.0)) == len(script)
    held = "jjjjjjjjjj" * 50
    assert read(reader, held, 0.1) == [("j",)] * len(held)
    moves = "\x1b[A\x1b[B" * 100
    assert len(read(reader, moves + "abcdefgh" * 10, 0.2)) == 200 + 80


def test_a_paste_in_pieces_is_one_until_nothing_comes():
    reader = BurstReader()
    assert read(reader, "The rain fell. " * 10, 1.0) == [("burst", "150")]
    assert read(reader, "qqq", 1.05) == [("burst", "3")]
    assert read(reader, "q", 1.5) == [("q",)]


def test_other_keys_within_a_paste_act_no_more_than_its_characters():
    coloured = "3 tests \x1b[31mfailed\x07\x0c in: n x y\x1b[A\r" * 8
    reader = BurstReader()
    [(kind, _)] = read(reader, coloured, 1.0)
    assert kind == "burst"
    [(kind, _)] = read(reader, "q\x0cq", 1.1)  # its last piece
    assert kind == "burst"
    line = "harbour, mast and keel, " * 5
    assert read(reader, f"\x15{line}\x1b[A", 9.0) == [("ctrl+u",), ("burst", "120"), ("up",)]
    assert read(reader, "\x15q", 9.1) == [("ctrl+u",), ("q",)]


def test_of_a_paste_its_text_is_kept():
    prose = "The rain fell.\x07\x0c\tThe hail\r" * 6
    [found] = BurstReader().read(list(XTermParser().feed(prose)), 0.0)
    assert isinstance(found, Burst)
    assert found.text == "The rain fell.\tThe hail\n" * 6


def test_a_key_that_is_held_down_after_a_paste_acts_again():
    reader = BurstReader()
    read(reader, "The rain fell. " * 10, 1.0)
    acted = [now for now in range(1000) if read(reader, "j", 1 + now / 1000) == [("j",)]]
    assert acted
    assert acted[0] == 300


@pytest.mark.slow
async def test_a_palette_command_in_one_piece(open_index):
    async with open_index() as pilot:
        before = pilot.app.theme
        await burst(pilot, "::")
        assert isinstance(pilot.app.screen, PalettePopup)
        await burst(pilot, "\x15high contrast\r")
        assert pilot.app.theme != before


@pytest.mark.slow
async def test_a_form_and_a_question_take_what_follows(run_app, app_workspace):
    async with run_app(app_workspace) as pilot:
        await burst(pilot, "ncabc")  # new, capture, into its first field
        popup = pilot.app.screen
        assert isinstance(popup, FormPopup)
        assert popup.query(FormInput).first().value.endswith("abc")
        await press(pilot, "escape", "escape")
        pilot.app.screen.query_one("#list-runs").focus()
        await settle(pilot)
        await burst(pilot, "ewords")  # the note is read in a thread first
        assert isinstance(pilot.app.screen, FormPopup)
        assert pilot.app.focused.value == "words"


async def test_what_takes_long_to_open_says_so_until_it_has(run_app, app_workspace, monkeypatch):
    monkeypatch.setattr("tui.terminal.key_order.OPENS_LATE_S", 0.01)
    goes_on = Event()
    monkeypatch.setattr("tui.screens.runs.starting.import_module", lambda _: goes_on.wait(60))
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        try:
            pilot.app.screen.action_new("capture")
            while "opening…" not in screen_text(pilot):
                await pilot.pause(0.01)
            assert not isinstance(pilot.app.screen, FormPopup)
        finally:
            goes_on.set()
        await settle(pilot)
        assert isinstance(pilot.app.screen, FormPopup)
        assert not pilot.app.opens_late


async def test_what_is_typed_waits_for_a_form_that_takes_long(run_app, app_workspace, monkeypatch):
    monkeypatch.setattr("tui.terminal.key_order._MOST_LOOKS", 20)
    looks, late, look_again = count(1), Event(), MiCrowApp._release_soon

    def looking(app: MiCrowApp) -> None:
        if app._answers_opening and next(looks) == 60:
            late.set()
        look_again(app)

    monkeypatch.setattr(MiCrowApp, "_release_soon", looking)
    monkeypatch.setattr("tui.screens.runs.starting.import_module", lambda _: late.wait(60))
    async with run_app(app_workspace) as pilot:
        await burst(pilot, "ncabc")
        assert isinstance(pilot.app.screen, FormPopup)
        assert pilot.app.screen.query(FormInput).first().value == "abc"


@pytest.mark.slow
async def test_what_is_typed_while_the_app_ends_does_nothing(open_index):
    async with open_index() as pilot:
        driver = pilot.app._driver
        assert driver is not None
        pilot.app.exit()
        for message in XTermParser().feed("3?:4/x"):
            driver.process_message(message)
        await pilot.pause(0.05)
        assert (pilot.app.current_mode, len(pilot.app.screen_stack)) == ("features", 1)


@pytest.mark.parametrize(
    ("sent", "keys"),
    [("\x1b\r", ["alt+enter"]), ("\x1ba", ["alt+a"]), ("\r", ["enter"]), ("\x1b", ["escape"])],
)
def test_alt_enter_is_escape_and_enter_in_most_terminals(sent: str, keys: list[str]) -> None:
    parser = KeyParser()
    found = [*parser.feed(sent), *parser.feed("")]  # the empty piece ends what may go on
    assert [event.key for event in found if isinstance(event, events.Key)] == keys
