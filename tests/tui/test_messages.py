"""The list of messages: what was told stays, errors are marked until read, enter goes there."""

from textual.widgets._toast import Toast

from mi_crow.errors import UserError
from tests.tui.driving import notices, press, screen_text, settle
from tui.message_log import MOST, MessageLog, Place, Told
from tui.widgets.frame.message_list import MessagesPopup
from tui.widgets.lists.row_list import RowList


def test_the_list_is_bounded_and_counts_repetitions():
    log = MessageLog()
    for number in range(MOST + 5):
        log.add(Told(float(number), f"message {number}"))
    log.add(Told(999.0, f"message {MOST + 4}"))
    told = log.read()
    assert len(told) == MOST
    assert (told[0].sentence, told[0].times) == (f"message {MOST + 4}", 2)


async def test_an_error_stays_in_the_list_with_its_remedy(app_workspace, run_app):
    async with run_app(app_workspace) as pilot:
        pilot.app.screen.tell(UserError("the [run] is\x1b gone", hint="capture it again"))
        await settle(pilot)
        assert "! 1" in screen_text(pilot).splitlines()[0]
        await press(pilot, "exclamation_mark")
        text = screen_text(pilot)
        assert isinstance(pilot.app.screen, MessagesPopup)
        assert "the [run] is␛ gone" in text
        assert "capture it again" in text
        await press(pilot, "escape")
        assert "! 1" not in screen_text(pilot).splitlines()[0]


async def test_what_is_said_again_is_shown_once(app_workspace, run_app):
    async with run_app(app_workspace) as pilot:
        for _ in range(3):
            pilot.app.notify("the harbour [bold] is closed", severity="warning")
        pilot.app.notify("another")
        await settle(pilot)
        assert notices(pilot).splitlines().count("the harbour [bold] is closed") == 1
        assert [str(one.render()) for one in pilot.app.screen.query(Toast)] == [
            "the harbour [bold] is closed",
            "another",
        ]


async def test_a_message_that_repeats_a_paste_leaves_the_screen_free(app_workspace, run_app):
    pasted = "the harbour at dawn, " * 1000
    async with run_app(app_workspace) as pilot:
        pilot.app.notify(f"Not saved: {pasted}", way="! then y copies it")
        pilot.app.screen.tell(UserError(f"{pasted!r} is not a name", hint="take a shorter one"))
        await settle(pilot)
        first, second = (str(one.render()) for one in pilot.app.screen.query(Toast))
        assert len(first) < 450
        assert first.endswith("…; ! then y copies it")
        assert second.endswith("…' is not a name; take a shorter one")
        kept = [told.sentence for told in pilot.app.message_log.read()]
        assert kept == [f"{pasted!r} is not a name", f"Not saved: {pasted}"]


async def test_enter_goes_to_what_a_job_made(app_workspace, run_app):
    async with run_app(app_workspace) as pilot:
        pilot.app.notify("train smol-sae finished", place=Place("runs", "smol-sae", "saes"))
        await press(pilot, "6", "exclamation_mark", "enter")
        assert pilot.app.current_mode == "runs"
        rows = pilot.app.screen.query_one("#list-saes", RowList)
        assert rows.has_focus
        assert rows.key == "smol-sae"


async def test_enter_on_what_was_removed_meanwhile_says_so(app_workspace, run_app):
    places = (Place("runs", "removed", "saes"), Place("features", "removed"))
    async with run_app(app_workspace) as pilot:
        open_one = pilot.app.context.sae_id
        for number, place in enumerate(places):
            pilot.app.notify(f"job {number} finished", place=place)
            await press(pilot, "6", "exclamation_mark", "enter")
            assert notices(pilot).splitlines()[-1] == "removed is not there any more"
        assert pilot.app.context.sae_id == open_one
        assert pilot.app.current_mode == "control"


def test_messages_about_an_sae_follow_its_new_name():
    log = MessageLog()
    for place in (Place("features", "a"), Place("runs", "a", "saes"), Place("runs", "a", "runs")):
        log.add(Told(1.0, "done", place=place))
    log.rename_sae("a", "b")
    assert [told.place.key for told in log.read() if told.place] == ["a", "b", "b"]


async def test_a_finished_job_is_told_with_the_key(app_workspace, fake_jobs, run_app):
    running = next(job for job in fake_jobs._locks if "train" in job)
    async with run_app(app_workspace) as pilot:
        fake_jobs.finish(running)
        pilot.app.look_now()
        await settle(pilot)
        told = pilot.app.message_log.read()[0]
        assert told.sentence == "train finished: the SAE smol-sae"  # the list has a key for it
        assert notices(pilot) == "train finished: the SAE smol-sae; ! then enter opens it"
        assert told.place == Place("runs", "smol-sae", "saes")
