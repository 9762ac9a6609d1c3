"""The Steer screen: a stack of interventions, two texts that grow, stop, sweep, keep."""

from dataclasses import replace
from threading import Event

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from mi_crow.errors import CancelledError, UserError
from mi_crow.mechanistic.concepts.annotations import Annotations, SavedGeneration
from mi_crow.mechanistic.sae.weights_hash import WEIGHTS_FILE, WeightsFile
from mi_crow.mechanistic.steering.interventions import parse_intervention
from tests.tui.driving import notices, press, screen_text, settle
from tests.tui.stand_ins import ScriptedSession
from tui.screens.steer.board import Board, target_read
from tui.screens.steer.constraint import NO_CONSTRAINT
from tui.screens.steer.generations import compared
from tui.screens.steer.heading import passage_title, reading
from tui.screens.steer.presets import preset_row
from tui.screens.steer.screen import SteerScreen
from tui.screens.steer.writing import (
    Origin,
    PassageDone,
    Plan,
    Sample,
    SamplingSettings,
    SideText,
)
from tui.widgets.area import Area
from tui.widgets.field import Field
from tui.widgets.forms.popup import FormPopup
from tui.widgets.lists.row_list import RowList
from tui.widgets.stream_text import Passage, StreamText


def text_of(pilot: Pilot, side: str) -> str:
    return pilot.app.screen.query_one(f"#text-{side}", StreamText).text


def stack(pilot: Pilot) -> list[str]:
    rows = pilot.app.screen.query_one("#steer-stack", RowList).rows
    return [f"{row.cells[0].text} {row.cells[1].text}" for row in rows]


def generations(session: ScriptedSession) -> list[dict]:
    return [asked for op, asked in session.asked if op == "generate"]


async def test_a_feature_sent_here_is_put_on_the_stack_once(open_steer, app_workspace):
    Annotations(app_workspace.annotations_path).set_concept("demo-topk", 3, "sails and masts")
    async with open_steer(3, 101, 3) as (pilot, _):
        assert stack(pilot) == ["#3 ≥ 0.3 norm", "#101 ≥ 0.3 norm"]
        assert "sails and masts" in screen_text(pilot)


async def test_both_texts_are_written_and_their_speed_is_told(open_steer):
    async with open_steer(3) as (pilot, session):
        await press(pilot, "ctrl+r")
        assert text_of(pilot, "baseline") == session.BASELINE
        assert text_of(pilot, "steered") == session.STEERED
        assert "41.3 tokens/s" in screen_text(pilot)
        (asked,) = generations(session)
        assert asked["prompt"] == "The harbour"
        assert asked["baseline"] is True
        assert asked["interventions"][0]["target"] == "feature:3"


async def test_written_texts_are_of_the_renamed_sae(open_steer):
    async with open_steer(3, size=(120, 40)) as (pilot, session):
        app, steer = pilot.app, pilot.app.screen
        await press(pilot, "ctrl+r")
        app.sae_renamed("demo-topk", "harbour")
        await settle(pilot)
        assert steer._board.plan.sae_id == "harbour"
        assert [one.target for one in steer._board.plan.stacks[0]] == ["feature:harbour/3"]
        assert text_of(pilot, "steered") == session.STEERED
        assert "demo-topk" not in screen_text(pilot)
        assert "harbour · cpu" in screen_text(pilot)


def test_what_was_read_and_what_wrote_it_are_of_the_renamed_sae(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / WEIGHTS_FILE).write_bytes(b"weights")
    weights = WeightsFile.of(tmp_path / "other")
    assert weights is not None
    before = weights.sha256()
    stack = (parse_intervention("other/7=+1"),)
    plan = Plan("The harbour", (stack,), (), SamplingSettings(), "demo", read_for=frozenset(("a",)))
    text = SideText(" at sea", (" at", " sea"), ("feature:other/7", "feature:3"), ((0, 2), (1, 0)))
    origin = Origin("sample", sae_id="other", weights=weights)
    done = PassageDone(0, "", "", samples=(Sample(text, text),), origin=origin)
    board = Board(plan, [done], started=1)
    assert plan.same_baseline(replace(plan, run=2)) is False  # which was read for others
    (tmp_path / "other").rename(tmp_path / "harbour")
    board.rename_sae("other", "harbour")
    assert board.baselines[0].targets == ("feature:harbour/7", "feature:3")
    target = target_read(board.plan.stacks[0][0], "demo")
    assert board.passages("steered", target)[0].notes[0].startswith("harbour/7 peaks at 2.00")
    found = board.done[0].origin
    assert found.weights is not None
    assert (found.sae_id, found.weights.sha256()) == ("harbour", before)
    again = replace(board.plan, kept=board.baselines, read_for=board.plan.targets)
    again = again.of_renamed("harbour", "quay")
    assert again.kept[0].targets[0] == "feature:quay/7"
    assert again.targets == again.read_for == frozenset(("feature:quay/7",))


def test_two_saved_texts_are_compared_word_by_word():
    def saved(seed: int, steered: str, baseline: str = " at sea.") -> SavedGeneration:
        held = ("sample", None, (), (), "cpu", {}, "The ship", None, seed, {}, baseline, steered)
        return SavedGeneration(seed, 0.0, *held, {})

    first, second, both = compared((saved(1, " is calm today."), saved(2, " is very calm now.")))
    assert "".join(second.tokens) == " is very calm now."
    assert [second.tokens[at] for at in second.differ] == [" very", " now."]
    assert [first.tokens[at] for at in first.differ] == [" today."]
    assert second.notes == ("differs from word 2 on: 2 of 4 words",)
    assert "seed 1" in first.title
    assert both.title.startswith("baseline of both")
    *_, plain, other = compared((saved(1, "", " a"), saved(2, "", " b")))
    assert (plain.differ, other.differ) == ((0,), (0,))
    assert compared((saved(1, " same"), saved(2, " same")))[1].notes == ("the same text",)


@pytest.mark.slow
def test_a_text_that_the_context_ended_says_so():
    done = PassageDone(0, "a", "b", {"tokens_s": 41.3}, shortened_to=12)
    single = Plan("The harbour", ((),), (), SamplingSettings())
    assert reading(single, [done]) == "context full after 12 tokens · 41.3 tokens/s"
    swept = Plan("The harbour", ((),), ("+0.4 max",), SamplingSettings())
    assert passage_title(swept, done) == "+0.4 max · context full after 12 tokens"
    assert reading(single, [PassageDone(0, "a", "b")]) == ""


@pytest.mark.slow
async def test_the_end_is_in_sight_while_a_text_grows_unless_somebody_reads(open_steer):
    async with open_steer(3) as (pilot, _):
        long = " ".join(f"word{number}" for number in range(200))
        text = pilot.app.screen.query_one("#text-steered", StreamText)

        async def seen(growth: int) -> str:
            text.show([Passage("", long[:growth])], grows=True)
            await settle(pilot)
            return screen_text(pilot)

        assert "word0 " in await seen(100)
        shown = await seen(len(long))
        assert "word199" in shown
        assert "word0 " not in shown
        text.end_growth()
        await settle(pilot)
        assert "word0 " in screen_text(pilot)
        assert "word0 " in await seen(len(long) - 1)  # somebody reads there
        text.scroll_to(y=3, animate=False, immediate=True)
        text.end_growth()
        assert text.scroll_offset.y == 3


async def test_of_whole_texts_the_beginnings_are_shown(open_steer):
    async with open_steer(3) as (pilot, session):
        long = " ".join(f"word{number}" for number in range(200))
        session.BASELINE = session.STEERED = f" begin {long} end"
        await press(pilot, "ctrl+r")
        for side in ("baseline", "steered"):
            one = pilot.app.screen.query_one(f"#text-{side}", StreamText)
            assert one.max_scroll_y > 0
            assert one.scroll_offset.y == 0
        assert screen_text(pilot).count("The harbour begin word0") == 2
        session.STEERED = f" begun {long} end"
        pilot.app.screen._write_again()
        await settle(pilot)
        assert "begun word0" in screen_text(pilot)
        assert "begin word0" in screen_text(pilot)


@pytest.mark.slow
async def test_texts_stand_side_by_side_where_there_is_room(open_steer):
    for size, beside in (((80, 24), False), ((120, 40), True)):
        async with open_steer(3, size=size) as (pilot, _):
            left, right = pilot.app.screen.query(StreamText)
            assert (left.region.y == right.region.y) is beside
            assert (left.region.x == right.region.x) is not beside


async def test_without_a_prompt_the_key_that_generates_asks_for_it(open_steer):
    async with open_steer(3) as (pilot, session):
        pilot.app.screen.query_one("#steer-prompt", Area).text = " "
        await press(pilot, "ctrl+r")
        assert "enter a prompt first" in notices(pilot)
        await press(pilot, *"The sea", "ctrl+r")
        assert generations(session)[-1]["prompt"].strip() == "The sea"


async def test_a_change_of_the_stack_leaves_the_keys_where_they_are(open_steer):
    async with open_steer(3) as (pilot, _):
        await press(pilot, "ctrl+r")
        stack_list = pilot.app.screen.focused
        pilot.app.screen.query_one("#steer-prompt", Area).text = ""
        await press(pilot, "l")
        assert "enter a prompt first" in notices(pilot)
        assert pilot.app.screen.focused is stack_list


async def while_it_loads(pilot: Pilot, session: ScriptedSession) -> None:
    """A request is under way, and interrupted before it has an answer."""
    answer, asked = session.request, Event()

    def interrupted(op: str, **params: object):
        session.request = answer
        asked.set()
        session._interrupted.wait(60)  # the model still loads
        raise CancelledError("interrupted", resumable=False)

    session.request = interrupted  # type: ignore[method-assign]
    await pilot.press("ctrl+r")
    while not asked.is_set():
        await pilot.pause()


async def test_a_text_that_is_interrupted_for_a_refused_one_is_stopped(open_steer):
    async with open_steer(3) as (pilot, session):
        await while_it_loads(pilot, session)
        pilot.app.screen.query_one("#steer-tokens", Field).value = "many"
        await press(pilot, "l")
        assert "tokens 'many' is not a whole number" in notices(pilot)
        assert "generating" not in screen_text(pilot)
        assert "stopped" in screen_text(pilot)


@pytest.mark.slow
async def test_stopped_it_is_too_where_the_model_was_not_asked_yet(open_steer, monkeypatch):
    async with open_steer(3) as (pilot, _):
        context, loaded = pilot.app.context, Event()
        ready = context.ready_session
        loads = lambda *of: (loaded.wait(60), ready(*of))[1]  # noqa: E731
        monkeypatch.setattr(context, "ready_session", loads)
        try:
            await pilot.press("ctrl+r")
            pilot.app.screen.query_one("#steer-tokens", Field).value = "many"
            await pilot.press("l")
            while "stopped" not in screen_text(pilot):
                await pilot.pause(0.01)
        finally:
            loaded.set()
        await settle(pilot)
        assert "stopped" in screen_text(pilot)


async def test_a_change_of_the_stack_says_nothing_of_what_it_interrupts(open_steer):
    async with open_steer(3) as (pilot, session):
        await while_it_loads(pilot, session)
        await press(pilot, "l")
        assert text_of(pilot, "steered") == session.STEERED
        assert notices(pilot) == ""
        assert generations(session)[-1]["interventions"][0]["value"] == 0.4


async def test_settings_reach_the_session(open_steer):
    async with open_steer() as (pilot, session):
        for name, value in (("tokens", "12"), ("temperature", "0"), ("seed", "7")):
            pilot.app.screen.query_one(f"#steer-{name}", Field).value = value
        await press(pilot, "ctrl+r")
        (asked,) = generations(session)
        assert (asked["max_new_tokens"], asked["temperature"], asked["seed"]) == (12, 0.0, 7)
        assert asked["n"] == 1


@pytest.mark.slow
async def test_a_text_is_kept_to_what_is_plausible(open_steer):
    async with open_steer(3) as (pilot, session):
        await press(pilot, "U", *"0.1, 0.3 nats", "enter")
        assert "and the steered text, plausible 0.1, KL 0.3 nats a token" in screen_text(pilot)
        await press(pilot, "ctrl+r")
        (asked,) = generations(session)
        assert (asked["plausible"], asked["kl_budget"]) == (0.1, 0.3)
        assert "plausible 0.1, KL 0.3 nats a token" in screen_text(pilot)
        await press(pilot, "U", *"7", "enter")
        assert "the constraint must be" in screen_text(pilot)  # and the line stays open
        await press(pilot, "escape", "U", "enter")
        assert len(generations(session)) == 1
        await press(pilot, "U", "backspace", "enter")
        await settle(pilot)
        again = generations(session)[-1]  # at once, beside the same baseline
        assert ("plausible" in again, again["baseline"]) == (False, False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("tokens", "many", "tokens 'many' is not a whole number"),
        ("tokens", "0", "tokens must be at least 1, not 0"),
        ("temperature", "-1", "the temperature must be a number of at least 0, not -1.0"),
        ("temperature", "nan", "the temperature must be a number of at least 0, not nan"),
        ("seed", "9" * 20, "the seed must be at most 4,294,967,295"),
        ("samples", "65", "n must be at most 64, not 65"),
    ],
)
async def test_settings_that_make_no_sense_are_refused(open_steer, field, value, sentence):
    async with open_steer() as (pilot, session):
        pilot.app.screen.query_one(f"#steer-{field}", Field).value = value
        await press(pilot, "ctrl+r")
        assert sentence in notices(pilot)
        assert generations(session) == []


async def test_escape_stops_the_writing_and_keeps_what_was_written(open_steer):
    async with open_steer(3) as (pilot, session):
        session.hold = True
        await pilot.press("ctrl+r")
        while not text_of(pilot, "baseline"):
            await pilot.pause()
        await press(pilot, "escape")
        assert text_of(pilot, "baseline") == " is"
        assert "stopped" in screen_text(pilot)
        assert pilot.app.current_mode == "steer"
        session.hold = False
        await press(pilot, "ctrl+r")
        assert text_of(pilot, "steered") == session.STEERED


async def test_a_sweep_writes_one_text_a_strength_under_one_baseline(open_steer):
    async with open_steer(3, 101) as (pilot, session):
        await press(pilot, "V", *"0,0.5,1.5", "enter")
        asked = generations(session)
        assert [one["interventions"][1]["value"] for one in asked] == [0, 0.5, 1.5]
        assert {one["interventions"][0]["value"] for one in asked} == {0.3}
        assert [one["baseline"] for one in asked] == [True, False, False]
        assert "≥ 1.5 norm" in text_of(pilot, "steered")
        assert text_of(pilot, "baseline") == session.BASELINE


@pytest.mark.slow
async def test_a_sweep_over_words_is_refused(open_steer):
    async with open_steer(3) as (pilot, session):
        await press(pilot, "V", *"much", "enter")
        assert "list of numbers" in screen_text(pilot)
        assert generations(session) == []


async def test_a_target_that_is_not_there_is_refused_in_the_form(open_steer):
    async with open_steer(size=(120, 40)) as (pilot, _):
        await press(pilot, "n")
        for field, text, sentence in (
            ("target", "99999", "'feature:99999' is not a feature"),
            ("target", "gone/3", "SAE 'gone' not found"),
            ("target", "tag:gone", "no feature of SAE 'demo-topk'"),
            ("condition", "99999>2", "'feature:99999' is not a feature"),
            ("condition", "gone/3>2", "SAE 'gone' not found"),
        ):
            form = pilot.app.screen
            form.query_one("#field-target", Field).value = "42"
            form.query_one("#field-condition", Field).value = ""
            form.query_one(f"#field-{field}", Field).value = text
            await press(pilot, "ctrl+r")
            assert sentence in screen_text(pilot)
        await press(pilot, "escape", "escape")
        assert stack(pilot) == []


def test_a_preset_of_several_saes_is_that_of_the_open_one_among_them():
    own, other = (parse_intervention(f"{sae}/3=+1") for sae in ("demo-topk", "tcoder"))
    name, saes, _ = preset_row("both", ((own, other), NO_CONSTRAINT), "demo-topk", None).cells
    assert (name.style, saes.text, saes.style) == ("$accent", "demo-topk, tcoder", "")
    name, saes, _ = preset_row("other", ((other,), NO_CONSTRAINT), "demo-topk", None).cells
    assert (name.style, saes.text, saes.style) == ("$faint", "tcoder", "$warning")


async def test_interventions_are_added_changed_and_removed(open_steer):
    async with open_steer() as (pilot, _):
        await press(pilot, "n")
        popup = pilot.app.screen
        assert isinstance(popup, FormPopup)
        popup.query_one("#field-target", Field).value = "42"
        popup.query_one("#field-op", Field).value = "scale"
        popup.query_one("#field-value", Field).value = "2"
        await press(pilot, "ctrl+r")
        assert stack(pilot) == ["#42 × 2"]
        await press(pilot, "greater_than_sign")
        assert stack(pilot) == ["#42 × 2.25"]
        await press(pilot, "enter")
        pilot.app.screen.query_one("#field-op", Field).value = "ablate"
        await press(pilot, "ctrl+r")
        assert stack(pilot) == ["#42 ablate"]
        await press(pilot, "x")
        assert stack(pilot) == []


@pytest.mark.slow
async def test_a_form_says_what_is_wrong_and_stays(open_steer):
    async with open_steer() as (pilot, _):
        await press(pilot, "n", "ctrl+r")
        assert "the target is empty" in screen_text(pilot)
        pilot.app.screen.query_one("#field-target", Field).value = "42"
        pilot.app.screen.query_one("#field-value", Field).value = "lots"
        await press(pilot, "ctrl+r")
        assert "'lots' is not a number" in screen_text(pilot)


async def test_a_preset_brings_the_stack_back(open_steer):
    async with open_steer(3, 101) as (pilot, _):
        await press(pilot, "P", *"boats", "enter")
        await press(pilot, "x", "x")
        assert stack(pilot) == []
        await press(pilot, "p", "enter")
        assert stack(pilot) == ["#3 ≥ 0.3 norm", "#101 ≥ 0.3 norm"]
        await press(pilot, "P", *"boats", "enter")
        assert isinstance(pilot.app.screen, SteerScreen)  # the same stack replaces itself
        await press(pilot, "x", "P", *"boats", "enter")
        assert "There is a preset “boats”, of another stack." in screen_text(pilot)
        await press(pilot, "n", "p", "enter")
        assert len(stack(pilot)) == 2
        await press(pilot, "x", "P", *"boats", "enter", "y", "p", "enter")
        assert len(stack(pilot)) == 1


async def test_a_name_that_is_refused_keeps_its_line_open(open_steer):
    async with open_steer(3) as (pilot, _):
        await press(pilot, "P", *"boats", "enter", "P", *"ships", "enter")
        await press(pilot, "p", "r", *"ships", "enter")
        assert "there is a preset 'ships' already" in screen_text(pilot)
        await press(pilot, *"masts", "enter")
        names = [one.name for one in pilot.app.context.annotations.presets()]
        assert names == ["masts", "ships"]


async def test_a_baseline_is_read_again_for_a_target_that_is_new(open_steer):
    async with open_steer(3, 101, size=(120, 40)) as (pilot, session):
        await press(pilot, "k", "space", "ctrl+r")  # without #3
        assert "#101 peaks at" in screen_text(pilot)
        await press(pilot, "j", "l")
        assert generations(session)[-1]["baseline"] is False
        await press(pilot, "k", "space")
        assert generations(session)[-1]["baseline"] is True
        await press(pilot, "x")
        assert generations(session)[-1]["baseline"] is False
        assert screen_text(pilot).count("#101 peaks at") == 2


def test_the_heat_is_of_a_target_that_was_read_in_both_texts():
    plan = Plan("The harbour", ((),), (), SamplingSettings())
    baseline = SideText(
        " at sea",
        (" at", " sea"),
        ("feature:3", "vector:calm", "feature:other/7"),
        ((0, 2), (-1, -2), (1, 0)),
    )
    steered = SideText(" ashore", (" ashore",), ("feature:other/7", "vector:calm"), ((1.5,), (-1,)))
    shown = Sample(baseline, steered)
    board = Board(plan, [PassageDone(0, "", "", samples=(shown,))], started=1)

    def notes(change: str) -> list[str]:
        target = target_read(parse_intervention(change), "demo-topk")
        return [board.passages(side, target)[0].notes[0] for side in ("baseline", "steered")]

    both = ["other/7 peaks at 1.00 on “at”", "other/7 peaks at 1.50 on “ashore”"]
    assert notes("other/7+0.5*9=+1") == both
    assert notes("3=+1") == both  # which was not read in the steered text
    assert notes("vector:calm=+1") == ["vector calm is nowhere above 0"] * 2


def test_what_a_feedback_did_stands_under_the_steered_text():
    data = {
        "text": " at sea",
        "tokens": [" at", " sea"],
        "acts": [[0, 2], [1, 0]],
        "factor": [[1.0, 0.25], None],
        "promoted_log_p": {"plain": [[-9, -8], [-4, -4]], "steered": [[-6, -5], [-4, -5]]},
    }
    steered = SideText.of(data, ("feature:3", "feature:5"))
    shown = Sample(SideText(" at", (" at",), ("feature:3", "feature:5"), ((0,), (0,))), steered)
    plan = Plan("The harbour", ((),), (), SamplingSettings())
    board = Board(plan, [PassageDone(0, "", "", samples=(shown,))], started=1)
    (passage,) = board.passages("steered", "feature:3")
    assert passage.notes[1] == "feedback 1.00 → 0.25 · promoted tokens log p -8.5 → -5.5"
    (passage,) = board.passages("steered", "feature:5")
    assert passage.notes[1] == "promoted tokens log p -4.0 → -4.5"
    (passage,) = board.passages("baseline", "feature:3")
    assert not any("log p" in note for note in passage.notes)


async def test_the_footer_says_that_escape_stops_what_is_generated(open_steer):
    async with open_steer(3) as (pilot, session):
        assert "esc stop" not in screen_text(pilot)
        session.hold = True
        await pilot.press("ctrl+r")
        while not generations(session):
            await pilot.pause()
        await pilot.pause()
        assert "esc stop" in screen_text(pilot)
        await pilot.press("question_mark")
        await pilot.pause()
        assert "esc stop" in screen_text(pilot)
        await press(pilot, "escape")
        assert "esc close" in screen_text(pilot)
        assert "stopped" in str(pilot.app.screen_stack[-2].query_one("#title-steered").render())
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, SteerScreen)


@pytest.mark.parametrize("opens", ["e", "V"])
async def test_escape_does_in_a_field_what_the_footer_says(open_steer, opens):
    async with open_steer(3) as (pilot, session):
        session.hold = True
        await pilot.press("ctrl+r")
        while not text_of(pilot, "baseline"):
            await pilot.pause()
        await pilot.press(opens)
        await pilot.pause()
        field = pilot.app.screen.focused
        assert isinstance(field, Area | Input)
        assert "esc stop" in screen_text(pilot).splitlines()[-1]
        await press(pilot, "escape")
        assert "stopped" in screen_text(pilot)
        assert pilot.app.screen.focused is field
        assert "esc stop" not in screen_text(pilot).splitlines()[-1]
        await press(pilot, "escape")
        assert pilot.app.screen.focused is not field


@pytest.mark.slow
async def test_a_generation_is_kept_with_how_it_was_made(open_steer):
    async with open_steer(3) as (pilot, session):
        await press(pilot, "ctrl+r", "S")
        (kept,) = pilot.app.context.annotations.generations()
        assert kept.prompt == "The harbour"
        assert kept.steered == session.STEERED
        assert kept.baseline == session.BASELINE


@pytest.mark.slow
async def test_a_refusal_is_told_and_the_next_try_works(open_steer):
    async with open_steer(3) as (pilot, session):
        session.error = UserError("feature 3 is not in this SAE", hint="it has 2")
        await press(pilot, "ctrl+r")
        assert "not in this SAE; it has 2" in notices(pilot)
        session.error = None
        await press(pilot, "ctrl+r")
        assert text_of(pilot, "steered") == session.STEERED


@pytest.mark.slow
async def test_without_a_prompt_nothing_is_written(open_steer):
    async with open_steer(3) as (pilot, session):
        pilot.app.screen.query_one("#steer-prompt", Area).text = " "
        await press(pilot, "ctrl+r")
        assert "enter a prompt first" in notices(pilot)
        assert generations(session) == []


@pytest.mark.slow
async def test_y_copies_the_prompt_and_both_texts(open_steer, monkeypatch):
    monkeypatch.delenv("TMUX", raising=False)
    async with open_steer(3) as (pilot, session):
        await press(pilot, "ctrl+r")
        pilot.app.screen.query_one("#text-steered").focus()
        await press(pilot, "y")
        for part in ("The harbour", session.BASELINE, session.STEERED):
            assert part in pilot.app.clipboard


@pytest.mark.slow
async def test_a_changed_strength_is_written_at_once_beside_the_same_baseline(open_steer):
    async with open_steer(3, 101) as (pilot, session):
        await press(pilot, "l")
        assert generations(session) == []  # nothing was asked for yet
        await press(pilot, "ctrl+r", "l")
        assert [one["baseline"] for one in generations(session)] == [True, False]
        assert generations(session)[-1]["interventions"][1]["value"] == 0.5
        assert text_of(pilot, "baseline") == session.BASELINE
        await press(pilot, "space")
        assert generations(session)[-1]["interventions"][1]["enabled"] is False
        assert "#101 off" in screen_text(pilot).replace("  ", " ")
        pilot.app.screen.query_one("#steer-seed", Field).value = "1"
        await press(pilot, "space")
        assert generations(session)[-1]["baseline"] is True  # the kept one had another seed


@pytest.mark.slow
async def test_what_is_written_under_the_old_strength_does_not_count(open_steer):
    async with open_steer(3) as (pilot, session):
        await press(pilot, "ctrl+r")
        session.hold = True
        await pilot.press("l")
        while len(generations(session)) < 2:
            await pilot.pause()
        session.hold = False
        await press(pilot, "h", "h")
        assert generations(session)[-1]["interventions"][0]["value"] == 0.2
        assert text_of(pilot, "steered") == session.STEERED


@pytest.mark.slow
async def test_samples_are_turned_with_their_heat_and_figures(open_steer):
    async with open_steer(3, 101, size=(120, 40)) as (pilot, session):
        pilot.app.screen.query_one("#steer-samples", Field).value = "3"
        await press(pilot, "ctrl+r")
        assert generations(session)[0]["n"] == 3
        assert "sample 1 of 3" in screen_text(pilot)
        assert "#101 peaks at" in screen_text(pilot)
        assert "KL 0.82 · perplexity 21.4, × 1.00" in screen_text(pilot)
        await press(pilot, "k", "right_square_bracket")
        assert "sample 2 of 3" in screen_text(pilot)
        assert "#3 peaks at" in screen_text(pilot)
        assert text_of(pilot, "steered").endswith("Again.")
        await press(pilot, "left_square_bracket", "left_square_bracket")
        assert text_of(pilot, "steered") == session.STEERED


@pytest.mark.slow
async def test_a_saved_text_is_opened_and_written_again(open_steer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with open_steer(3) as (pilot, session):
        await press(pilot, "ctrl+r", "S", "l", "S", "x")
        await press(pilot, "K", "j", "enter")
        assert stack(pilot) == ["#3 ≥ 0.3 norm"]
        assert "saved 20" in screen_text(pilot)
        await press(pilot, "ctrl+r")
        assert "The same texts as were saved" in notices(pilot)
        session.STEERED = " is another one."
        await press(pilot, "K", "R")
        assert generations(session)[-1]["interventions"][0]["value"] == 0.4
        assert "Other texts than were saved" in notices(pilot)
        await press(pilot, "K", "space", "space", "w", *"texts.md", "enter")
        written = (tmp_path / "texts.md").read_text()
        assert written.count("## Generation") == 2
        assert "feature 3 at least 0.3 norm" in written
        pilot.app.clear_notifications()  # they lie over the title
        await press(pilot, "K", "space", "space", "equals_sign")
        assert "Two saved generations" in screen_text(pilot)
        await press(pilot, "escape", "K", "x", "y")
        assert len(pilot.app.context.annotations.generations()) == 1


@pytest.mark.slow
async def test_presets_are_renamed_and_removed(open_steer):
    async with open_steer(3) as (pilot, _):
        await press(pilot, "P", *"boats", "enter", "p", "r", *"ships", "enter")
        assert [one.name for one in pilot.app.context.annotations.presets()] == ["ships"]
        await press(pilot, "p", "x", "n")
        assert len(pilot.app.context.annotations.presets()) == 1
        await press(pilot, "p", "x", "y")
        assert pilot.app.context.annotations.presets() == []
