"""Somebody who has never seen the app gets from an empty workspace to a steered sentence at 80x24,
pressing only keys that the screen shows at that moment."""

import re
from functools import partial
from time import monotonic

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, TextArea

from mi_crow.jobs import JobState, list_jobs, submit
from tests.helpers.process_tree import worked_s
from tests.helpers.short_demo import WORKER
from tests.tui.driving import press, screen_text, settle
from tests.tui.stand_ins import give_index
from tui.actions import key_label
from tui.app import MiCrowApp
from tui.widgets.stream_text import StreamText

PROMPT = "Dear Anna, I hope"
STANDSTILL_S = 120.0  # without an event or processor time: the job waits for nothing
MOST_WORK_S = 400.0  # of processor time, of which it takes about 20: it does not end


class Stranger:
    """Reads the screen, and presses what stands on it."""

    def __init__(self, pilot: Pilot) -> None:
        self._pilot = pilot

    @property
    def sees(self) -> str:
        """The screen as one line of words."""
        return re.sub(r"\s+", " ", screen_text(self._pilot))

    async def press(self, key: str, words: str) -> None:
        """Presses a key that the screen shows with these words behind it."""
        shown = f"{key_label(key)} {words}"
        assert re.search(rf"(?<!\S){re.escape(shown)}", self.sees), (
            f"“{shown}” is not on the screen:\n{screen_text(self._pilot)}"
        )
        await press(self._pilot, key)

    async def type(self, text: str) -> None:
        """Types into the field that has the focus, which says how it is left."""
        assert isinstance(self._pilot.app.screen.focused, Input | TextArea)
        assert "esc leave the field" in self.sees
        await press(self._pilot, *["space" if one == " " else one for one in text])

    async def wait_for(self, words: str) -> None:
        """Waits until the screen shows `words`, for as long as a job works, however slowly."""
        app = self._pilot.app
        assert isinstance(app, MiCrowApp)
        before, since, works = None, monotonic(), True
        while words not in self.sees:
            assert works, f"“{words}” did not appear:\n{screen_text(self._pilot)}"
            jobs = list_jobs(app.context.workspace)
            works = any(job.active for job in jobs)  # else one more look shows how it ended
            if (now := [_progress_of(job) for job in jobs]) != before:
                before, since = now, monotonic()
            assert monotonic() - since < STANDSTILL_S, f"nothing happens: {jobs}"
            assert max((one[-1] for one in now), default=0.0) < MOST_WORK_S, f"no end: {jobs}"
            app.look_now()
            await settle(self._pilot)
            await self._pilot.pause(0.2)  # another process works: there is nothing to wait on
        await settle(self._pilot)

    async def steer_what_is_open(self) -> None:
        """From the table of features to the two texts."""
        await self.press("s", "steer")
        await self.press("e", "prompt")
        await self.type(PROMPT)
        await self.press("ctrl+r", "generate")

    async def notices_are_gone(self) -> None:
        """Waits until no message covers what stands below it; each goes by itself."""
        while len(self._pilot.app._notifications):
            await self._pilot.pause(0.2)
        await settle(self._pilot)

    @property
    def texts(self) -> list[str]:
        """What stands as baseline and as steered text."""
        found = self._pilot.app.screen.query(StreamText)
        return [one.text for one in found]


def _progress_of(job: JobState) -> tuple[str, int, float]:
    """What changes while a job does something; last the seconds that its process has worked."""
    return job.status, job.done, worked_s(job.process.pid) if job.process else 0.0


@pytest.mark.slow
async def test_from_an_empty_workspace_to_a_steered_sentence(run_app, empty_workspace, monkeypatch):
    monkeypatch.setattr("mi_crow.jobs.launch.submit", partial(submit, runner=WORKER))
    monkeypatch.setattr("textual.app.App.NOTIFICATION_TIMEOUT", 5.0)  # they go by themselves
    async with run_app(empty_workspace, size=(80, 24)) as pilot:
        stranger = Stranger(pilot)
        await stranger.press("n", "new")
        await stranger.press("d", "Run the demo")
        await stranger.wait_for("demo finished")
        assert [job.status for job in list_jobs(empty_workspace)] == ["finished"]
        await stranger.press("2", "Features")
        await stranger.steer_what_is_open()
        await stranger.notices_are_gone()  # that of the demo, where the machine is quick
        assert "tokens/s" in stranger.sees
        baseline, steered = stranger.texts
        assert PROMPT in stranger.sees
        assert baseline.strip()
        assert steered.strip()
        assert steered != baseline


async def test_from_the_features_to_a_steered_sentence(run_app, app_workspace):
    async with run_app(app_workspace, size=(80, 24), sae_id="demo-topk") as pilot:
        session = give_index(pilot.app)
        await settle(pilot)
        stranger = Stranger(pilot)
        await stranger.press("1", "Runs")
        await stranger.press("2", "Features")
        await stranger.steer_what_is_open()
        assert [
            one.endswith(end)
            for one, end in zip(stranger.texts, (session.BASELINE, session.STEERED), strict=True)
        ] == [True, True]


async def test_a_key_that_is_not_shown_is_refused(run_app, app_workspace):
    async with run_app(app_workspace, size=(80, 24)) as pilot:
        with pytest.raises(AssertionError, match="not on the screen"):
            await Stranger(pilot).press("T", "tags")


async def test_waiting_for_what_no_job_brings_ends(
    run_app, empty_workspace, fake_jobs, monkeypatch
):
    async with run_app(empty_workspace, size=(80, 24)) as pilot:
        stranger = Stranger(pilot)
        with pytest.raises(AssertionError, match="did not appear"):
            await stranger.wait_for("demo finished")
        fake_jobs.add("running", "demo")
        monkeypatch.setitem(globals(), "STANDSTILL_S", 0.0)
        with pytest.raises(AssertionError, match="nothing happens"):
            await stranger.wait_for("demo finished")
