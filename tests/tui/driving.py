"""Driving the app in tests: keys in, plain text out; waits for workers, never sleeps.

Textual's own pilot finds out whether the app is idle by sleeping and comparing clocks, and asks
every widget after each key. The event loop knows: `without_sleeping` lets the pilot ask it.
"""

import asyncio
from contextlib import suppress

import pytest
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Input, TextArea
from textual.worker import WorkerCancelled

from tui.app import MiCrowApp
from tui.widgets.forms.fields import Advice
from tui.widgets.lists.feature_table import FeatureTable
from tui.widgets.lists.row_list import RowList

SMALL, LARGE = (80, 24), (200, 60)
SIZES = pytest.mark.parametrize(
    "size",
    [pytest.param(SMALL, id="small"), pytest.param(LARGE, id="large", marks=pytest.mark.slow)],
)
DRAWN_ANYWAY_S = 1.0  # for a test that waits on its own; `drawn` draws at once
MOST_ROUNDS = 100_000  # of the event loop: a widget that always has more to do ends a wait


async def settle(pilot: Pilot) -> None:
    """Waits until threads are done and what they posted, or started next, is on the screen."""
    workers = pilot.app.workers
    while True:
        with suppress(WorkerCancelled):  # one of a popup that closed meanwhile
            await workers.wait_for_complete()
        await drawn(pilot.app)
        if all(worker.is_finished for worker in workers):
            return


async def drawn(app: App) -> None:
    """Waits until every key and message has been handled, and draws what they changed."""
    while app._exception is None:
        await _nothing_to_do()
        if _is_held_back(app):
            await asyncio.sleep(0.001)
            continue
        screen = app._screen_stack[-1] if app._screen_stack else None
        waiting = screen is not None and (
            screen._layout_required
            or screen._scroll_required
            or screen._repaint_required
            or screen._recompose_required
            or screen._dirty_widgets
            or screen._callbacks
        )
        if screen is None or not waiting or not screen.is_current:
            return
        if app._batch_count:  # Textual draws nothing for 50 ms after a screen is switched
            if not app.is_running or app._exit:
                return
            await asyncio.sleep(0.001)
            continue
        screen._on_timer_update()


def _is_held_back(app: App) -> bool:
    """Whether a timer is about to go on: Textual waits for the last of many sizes, and a key waits
    for the end of the one before it."""
    keys_act = isinstance(app, MiCrowApp) and app.keys_act
    return app.is_running and not app._exit and (keys_act or app._resize_event is not None)


async def _nothing_to_do(*_sleeps: float) -> None:
    """Waits until all that the event loop could do now is done."""
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
    for _ in range(MOST_ROUNDS):
        await asyncio.sleep(0)
        if not ready:
            return


def without_sleeping(patch: pytest.MonkeyPatch) -> None:
    """Makes every pilot wait as `settle` does, except for threads."""

    async def wait_for_screen(pilot: Pilot, timeout: float = 0) -> bool:
        await drawn(pilot.app)
        return pilot.app._exception is None

    patch.setattr("textual.app.wait_for_idle", _nothing_to_do)
    patch.setattr("textual.pilot.wait_for_idle", _nothing_to_do)
    patch.setattr("textual.screen.UPDATE_PERIOD", DRAWN_ANYWAY_S)  # nothing is drawn in between
    patch.setattr(Pilot, "_wait_for_screen", wait_for_screen)


async def press(pilot: Pilot, *keys: str) -> None:
    """Presses keys one after the other, each on a settled screen; what is typed into a field comes
    as fast as somebody types."""
    rest = list(keys)
    while rest:
        typed = 1
        if isinstance(pilot.app.focused, Input | TextArea):
            typed = max(1, next((n for n, key in enumerate(rest) if len(key) > 1), len(rest)))
        await pilot.press(*rest[:typed])
        del rest[:typed]
        await settle(pilot)


async def jump(pilot: Pilot, feature: int) -> None:
    """Goes to a feature by its number, on Features."""
    await press(pilot, "number_sign", *str(feature), "enter")


async def select(pilot: Pilot, name: str, key: str) -> RowList:
    """Puts the cursor on a row of one of the lists of Runs."""
    rows = pilot.app.screen.query_one(f"#list-{name}", RowList)
    rows.focus()
    rows.select(key)
    await settle(pilot)
    return rows


def table(pilot: Pilot) -> FeatureTable:
    return pilot.app.screen.query_one(FeatureTable)


def screen_text(pilot: Pilot) -> str:
    """What the terminal would show, as lines of plain text."""
    strips = pilot.app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


def notices(pilot: Pilot) -> str:
    """What the app told in passing, as plain text."""
    return "\n".join(notification.message for notification in pilot.app._notifications)


def trouble_of(advice: Advice) -> str:
    """The first thing that a form says is wrong."""
    return next(iter(advice.troubles.values()), "")


def where_of(advice: Advice) -> str:
    """The field that it says is wrong first; empty for all of them together."""
    return next(iter(advice.troubles), "")
