"""Driving the app in tests: keys in, plain text out; waits for workers, never sleeps."""

from textual.pilot import Pilot


async def settle(pilot: Pilot) -> None:
    """Waits until threads are done and what they posted, or started next, is on the screen."""
    workers = pilot.app.workers
    while True:
        await workers.wait_for_complete()
        await pilot.pause()
        if all(worker.is_finished for worker in workers):
            return


async def press(pilot: Pilot, *keys: str) -> None:
    """Presses keys one after the other, each on a settled screen."""
    for key in keys:
        await pilot.press(key)
        await settle(pilot)


def screen_text(pilot: Pilot) -> str:
    """What the terminal would show, as lines of plain text."""
    strips = pilot.app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


def notices(pilot: Pilot) -> str:
    """What the app told in passing, as plain text."""
    return "\n".join(notification.message for notification in pilot.app._notifications)
