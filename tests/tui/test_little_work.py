"""What the app does not do twice, so that it answers at once: parse styles, draw, read, send."""

import gc
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from textual._compositor import Compositor
from textual.cache import LRUCache
from textual.css import stylesheet
from textual.css.parse import parse
from textual.css.stylesheet import Stylesheet
from textual.geometry import Region
from textual.widget import Widget

from tests.tui.driving import press, screen_text, settle
from tests.tui.stand_ins import give_index
from tui import allocation
from tui.actions import SCREENS
from tui.allocation import Garbage
from tui.screens.features.detail import FeatureDetailPane
from tui.terminal.compositor import PieceCompositor
from tui.terminal.stylesheet import KeptStylesheet
from tui.widgets.example_list import ExampleList
from tui.widgets.lists.feature_table import FeatureTable


async def test_each_source_of_styles_is_parsed_once(run_app, app_workspace, monkeypatch):
    parsed: Counter[object] = Counter()

    def counting(scope, css, read_from, **settings):
        parsed[scope, read_from, settings["tie_breaker"]] += 1
        return parse(scope, css, read_from, **settings)

    monkeypatch.setattr(stylesheet, "parse", counting)
    # What earlier apps of this process have parsed is forgotten.
    monkeypatch.setattr(KeptStylesheet, "_of_variables", LRUCache(2))
    async with run_app(app_workspace, size=(80, 24)) as pilot:
        await press(pilot, "n", "escape")  # a popup brings widgets of its own
        for digit in range(1, len(SCREENS) + 1):
            await press(pilot, str(digit))
    assert set(parsed.values()) == {1}


async def test_styles_are_read_with_the_first_screen_that_needs_them(run_app, app_workspace):
    def files(app) -> set[str]:
        return {Path(path).name for path, name in app.stylesheet.source if not name}

    async with run_app(app_workspace, size=(80, 24)) as pilot:
        assert files(pilot.app) == {"app.tcss", "runs.tcss"}
        await press(pilot, "2")
        assert files(pilot.app) == {"app.tcss", "runs.tcss", "widgets.tcss", "features.tcss"}
        await press(pilot, "question_mark")
        assert "popups.tcss" in files(pilot.app)


@pytest.mark.slow
async def test_an_answer_that_takes_its_time_is_announced(run_app, app_workspace, monkeypatch):
    async with run_app(app_workspace, size=(80, 24), sae_id="demo-topk") as pilot:
        give_index(pilot.app)
        await settle(pilot)
        await press(pilot, "2")
        assert "reading…" not in screen_text(pilot)
        index, go_on = pilot.app.context.features, threading.Event()
        find = index.find

        def slow(*arguments, **settings):
            go_on.wait(60)
            return find(*arguments, **settings)

        monkeypatch.setattr(index, "find", slow, raising=False)
        await pilot.press("o")
        try:
            while "reading…" not in screen_text(pilot):
                await pilot.pause(0.01)
        finally:
            go_on.set()
        await settle(pilot)
        assert "reading…" not in screen_text(pilot)


@pytest.mark.slow
async def test_beside_another_pane_a_table_scrolls_by_a_third_at_once(run_app, app_workspace):
    for size, more in (((80, 24), False), ((200, 40), True)):
        async with run_app(app_workspace, size=size, sae_id="demo-topk") as pilot:
            give_index(pilot.app)
            await settle(pilot)
            await press(pilot, "2")
            table = pilot.app.screen.query_one(FeatureTable)
            height = table.size.height
            table.cursor = height - 1
            await press(pilot, "j")
            assert table.cursor == height
            assert table.scroll_offset.y == 1 + height // 3 * more
            await press(pilot, "g", "G")  # a long way is no further than the cursor
            assert table.scroll_offset.y == table.row_count - height


@pytest.mark.slow
async def test_lines_are_kept_while_the_colours_stay(run_app, app_workspace):
    async with run_app(app_workspace, size=(80, 24), sae_id="demo-topk") as pilot:
        give_index(pilot.app)
        await settle(pilot)
        await press(pilot, "2")
        table = pilot.app.screen.query_one(FeatureTable)
        before = table.render_line(1)
        pilot.app.screen.add_class("-another")
        await pilot.pause()
        assert table.render_line(1) is before
        pilot.app.theme = "textual-light"
        await settle(pilot)
        assert table.render_line(1) != before


async def test_garbage_is_looked_for_once_the_app_has_started(
    run_app, empty_workspace, monkeypatch
):
    monkeypatch.setattr("tui.workbench.STARTED_S", 0.01)
    thresholds = gc.get_threshold()
    gc.disable()  # as the command does before it imports the app
    try:
        async with run_app(empty_workspace) as pilot:
            while not gc.isenabled():
                await pilot.pause(0.01)
            assert gc.get_freeze_count()
    finally:
        gc.enable()
        gc.unfreeze()
        gc.set_threshold(*thresholds)


async def test_garbage_is_looked_for_when_nobody_types(run_app, empty_workspace, monkeypatch):
    rested: list[float] = []
    monkeypatch.setattr(Garbage, "look_at_rest", lambda _, seconds: rested.append(seconds))
    async with run_app(empty_workspace) as pilot:
        pilot.app.last_key_at -= 10_000
        pilot.app.look_now()
        assert rested.pop() > 10_000
        await press(pilot, "j")
        pilot.app.look_now()
        assert rested.pop() < 10_000


@pytest.fixture
def looked(monkeypatch):
    """What a look for garbage does; `gc.count` is how often what stayed was looked at since."""
    did: list[str] = []
    stand_in = SimpleNamespace(count=0, get_count=lambda: (0, 0, stand_in.count), did=did)
    for name in ("freeze", "unfreeze", "collect", "enable", "set_threshold"):
        setattr(stand_in, name, lambda *_, name=name: did.append(name))
    monkeypatch.setattr(allocation, "gc", stand_in)
    return stand_in


def test_what_has_lived_for_long_is_looked_through_when_nobody_has_typed_for_long(looked):
    garbage, did = Garbage(), looked.did
    looked.count = 1
    garbage.look_at_rest(60.0)
    assert not did  # Python has looked through nothing yet: the app starts
    garbage.begin()
    did.clear()
    garbage.look_at_rest(0.2)
    assert not did
    garbage.look_at_rest(1.5)
    assert did == ["collect", "freeze"]  # what is new
    looked.count = 0
    garbage.look_at_rest(2.5)
    assert did == ["collect", "freeze"]  # nothing is
    garbage.look_at_rest(11.0)
    assert did[2:] == ["unfreeze", "collect", "freeze"]
    garbage.look_at_rest(12.0)
    assert len(did) == 5  # once
    looked.count = 1
    garbage.look_at_rest(13.0)  # a job reports itself
    garbage.look_at_rest(14.0)
    assert did[5:] == ["collect", "freeze"] * 2
    garbage._all_at -= 61
    garbage.look_at_rest(15.0)
    assert did[9:] == ["unfreeze", "collect", "freeze"]
    did.clear()
    garbage._kept = 1000
    garbage.look_at_rest(0.2)
    assert not did
    garbage.look_at_rest(1.5)  # somebody has typed for hours
    assert did == ["unfreeze", "collect", "freeze"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs glibc")
def test_what_is_free_between_what_is_kept_goes_back_to_the_system():
    code = """
import gc
import subprocess
import sys
from mi_crow.memory import memory_readings
from tui import allocation

allocation.keep_little()
kept = [bytes(2_000) for _ in range(20_000)]
kept = [block for at, block in enumerate(kept) if at % 64 == 0]
allocation._OFTEN = 0
garbage = allocation.Garbage()
garbage.begin()
before = memory_readings()["memory"]
garbage.look_at_rest(1.5)
assert before - memory_readings()["memory"] > 10e6, (before, memory_readings())
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
async def wide_features(open_on):
    """Features with the table and the open feature beside it."""
    async with open_on("2", size=(200, 40)) as pilot:
        yield pilot


def rules_of(nodes) -> list[object]:
    return [
        [dict(styles.base._rules) for styles in (node.styles, *node._component_styles.values())]
        for node in nodes
    ]


async def test_what_no_other_rule_applies_to_is_not_styled_again(wide_features, monkeypatch):
    styled: list[object] = []
    apply = Stylesheet.apply

    def counting(sheet, node, **settings):
        styled.append(node)
        apply(sheet, node, **settings)

    screen = wide_features.app.screen
    screen.update_node_styles()  # also of scrollbars, which came later
    monkeypatch.setattr(Stylesheet, "apply", counting)
    screen.add_class("-another")
    screen.update_node_styles()
    assert not styled
    screen.add_class("-too-low")  # whose rules hide all but one sentence, and shows that
    assert 0 < len(styled) < 10


async def test_what_is_left_as_it_was_is_styled_by_the_rules_that_apply(wide_features):
    app = wide_features.app
    for keys in (["plus"], ["escape"], ["/", "a"], ["escape"], ["tab", "j"], ["question_mark"]):
        await press(wide_features, *keys)
        nodes = list(app.screen.walk_children(with_self=True))
        kept = rules_of(nodes)
        app.stylesheet._styled_by.clear()
        app.stylesheet.update(app.screen)
        assert rules_of(nodes) == kept


async def test_the_ground_below_a_list_is_looked_up_once(wide_features, monkeypatch):
    table = wide_features.app.screen.query_one(FeatureTable)
    table.show([1, 2], wide_features.app.context.features.rows)
    await settle(wide_features)
    height = table.size.height
    before = table.render_lines(Region(0, 0, table.size.width, height))
    looked_up: list[object] = []
    found = Widget.rich_style.fget
    assert found is not None

    def counting(widget):
        looked_up.append(widget)
        return found(widget)

    monkeypatch.setattr(FeatureTable, "rich_style", property(counting))
    assert table.render_lines(Region(0, 0, table.size.width, height)) == before
    assert height > 20
    assert len(looked_up) == 1


async def test_a_move_draws_two_lines(wide_features, monkeypatch):
    drawn: Counter[int] = Counter()
    render_line = FeatureTable.render_line

    def counting(table, y):
        drawn[y] += 1
        return render_line(table, y)

    monkeypatch.setattr(FeatureTable, "render_line", counting)
    await press(wide_features, "j")
    assert set(drawn) == {0, 1}


async def test_another_feature_moves_nothing_on_the_screen(wide_features, monkeypatch):
    laid_out: list[object] = []
    reflow = Compositor.reflow

    def counting(compositor, *arguments):
        laid_out.append(compositor)
        return reflow(compositor, *arguments)

    monkeypatch.setattr(Compositor, "reflow", counting)
    pane = wide_features.app.screen.query_one(FeatureDetailPane)
    before = pane.feature
    await press(wide_features, "j")
    assert pane.feature != before
    assert f"#{pane.feature}" in screen_text(wide_features)
    assert not laid_out


@pytest.fixture
def drawn(monkeypatch) -> list[int]:
    """How many pieces of lines each frame had."""
    frames: list[int] = []
    draw = PieceCompositor._drawn

    def counting(compositor, spans):
        spans = list(spans)
        frames.append(len(spans))
        return draw(compositor, spans)

    monkeypatch.setattr(PieceCompositor, "_drawn", counting)
    return frames


async def test_a_new_layout_is_drawn_once(wide_features, drawn):
    screen = wide_features.app.screen
    drawn.clear()
    screen.refresh(layout=True)
    screen.refresh()
    screen._on_timer_update()
    assert len(drawn) == 1


async def test_the_number_of_a_feature_opens_it_in_one_frame(wide_features, drawn, monkeypatch):
    monkeypatch.setattr("tui.terminal.frames.HELD_S", 60.0)  # however long the thread takes
    await press(wide_features, "#", "9")
    screen = wide_features.app.screen
    shown = FeatureDetailPane.show

    def showing(pane, read):
        assert not drawn  # nothing from the answer to the feature
        shown(pane, read)

    monkeypatch.setattr(FeatureDetailPane, "show", showing)
    drawn.clear()
    await press(wide_features, "enter")
    assert screen.query_one(FeatureDetailPane).feature == 9
    assert drawn


async def test_a_frame_is_not_held_for_long(wide_features, drawn, monkeypatch):
    monkeypatch.setattr("tui.terminal.frames.HELD_S", 0.05)
    screen = wide_features.app.screen
    drawn.clear()
    screen.hold_frame()
    screen.refresh()
    screen._on_timer_update()
    assert not drawn
    await settle(wide_features)
    assert drawn
    assert not wide_features.app._batch_count


async def test_what_is_drawn_in_pieces_is_the_whole_screen(wide_features):
    app = wide_features.app
    for keys in (["j"], ["G"], ["/", "a"], ["escape"], ["?"], ["escape"], ["tab", "j"]):
        await press(wide_features, *keys)
        pieces, whole = PieceCompositor(), Compositor()
        for one in (pieces, whole):
            one.reflow(app.screen, app.size)
        assert pieces.render_strips() == whole.render_strips()


async def test_examples_below_the_screen_are_drawn_in_the_end(wide_features):
    examples = wide_features.app.screen.query_one(ExampleList)
    await press(wide_features, "enter", "G")
    assert examples.cursor == examples.item_count - 1
    assert examples.text_to_copy()[0].count("document") == examples.item_count
