"""What Steer says and keeps of a text is what wrote it, whatever was changed or opened since."""

import hashlib
import json
from dataclasses import replace
from functools import partial

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from mi_crow.mechanistic.concepts.annotations import SavedGeneration
from mi_crow.mechanistic.steering.interventions import parse_intervention
from mi_crow.store.workspace import Workspace
from tests.tui.conftest import OpenWithSession
from tests.tui.driving import notices, press, screen_text, settle
from tests.tui.stand_ins import ScriptedSession
from tui import messages
from tui.app import MiCrowApp
from tui.screens.steer.board import Board
from tui.screens.steer.generations import plan_of
from tui.screens.steer.kept_reading import as_kept, sample_of_saved
from tui.screens.steer.writing import PassageDone, Plan, Sample, SamplingSettings, SideText
from tui.widgets.field import Field
from tui.widgets.frame.popup import Confirm
from tui.widgets.lists.row_list import RowList
from tui.widgets.stream_text import Passage, StreamText

SAE, OTHER = "demo-topk", "smol-sae"


@pytest.fixture
def open_steer(open_steer: OpenWithSession, app_workspace) -> OpenWithSession:
    """Where two SAEs have weights, whose hash a saved text keeps."""
    for sae_id in (SAE, OTHER):
        (app_workspace.sae_dir(sae_id) / "sae_weights.safetensors").write_text(sae_id)
    return partial(open_steer, size=(120, 40))


def heading(pilot: Pilot) -> str:
    return pilot.app.screen.query_one("#title-steered", Static).render().plain  # type: ignore[union-attr]


def stack(pilot: Pilot) -> list[str]:
    rows = pilot.app.screen.query_one("#steer-stack", RowList).rows
    return ["".join((row.cells[0].text, *(text for text, _ in row.cells[0].more))) for row in rows]


def written(session: ScriptedSession) -> int:
    return sum(op == "generate" for op, _ in session.asked)


async def open_other(pilot: Pilot) -> None:
    app = pilot.app
    assert isinstance(app, MiCrowApp)
    app.open_sae(OTHER)
    await settle(pilot)


async def test_the_heading_names_the_stack_that_wrote_the_text(open_steer):
    async with open_steer(3) as (pilot, _):
        assert "#3" not in heading(pilot)  # nothing is written yet
        await press(pilot, "ctrl+r")
        assert "#3 ≥ 0.3 norm" in heading(pilot)
        pilot.app.screen.query_one("#steer-seed", Field).value = "7"
        await pilot.app.go("steer", messages.SendToSteer(101))
        await settle(pilot)
        assert "#3 ≥ 0.3 norm " in heading(pilot)  # neither wrote it
        await press(pilot, "x", "k", "space")
        assert "no interventions" in heading(pilot)


async def test_the_heading_is_whole_where_the_texts_go_below_each_other(open_steer):
    async with open_steer(3, size=(200, 60)) as (pilot, _):
        await press(pilot, "ctrl+r")
        await pilot.resize_terminal(80, 24)
        await settle(pilot)
        assert "#3 ≥ 0.3 norm " in heading(pilot)
        assert "no interventions " in str(pilot.app.screen.query_one("#title-baseline").render())


@pytest.mark.slow
async def test_each_text_of_a_sweep_has_its_own_figure_and_the_heading_names_all(open_steer):
    async with open_steer(3, 101, size=(160, 40)) as (pilot, session):
        kl = iter((0.0, 0.25, 0.75))
        request = session.request

        def measured(op, **params):
            for event in request(op, **params):
                if event["event"] == "result":
                    event = event | {"metrics": {"tokens_s": 41.3, "kl": next(kl)}}
                yield event

        session.request = measured
        await press(pilot, "V", *"0,0.5,1.5", "enter")
        text = pilot.app.screen.query_one("#text-steered", StreamText).text
        for title in ("≥ 0 norm · KL 0.00", "≥ 0.5 norm · KL 0.25", "≥ 1.5 norm · KL 0.75"):
            assert title in text
        assert "#101 at ≥ 0 norm, ≥ 0.5 norm, ≥ 1.5 norm, with #3 ≥ 0.3 norm" in heading(pilot)
        assert "KL" not in heading(pilot)


@pytest.mark.slow
async def test_after_another_sae_was_opened_text_and_copy_still_name_theirs(
    open_steer, monkeypatch
):
    monkeypatch.delenv("TMUX", raising=False)
    async with open_steer(3, size=(160, 40)) as (pilot, _):
        await press(pilot, "ctrl+r")
        await open_other(pilot)
        assert f"SAE {SAE}" in heading(pilot)
        pilot.app.screen.query_one("#text-steered").focus()
        await press(pilot, "y")
        assert f"steered: #3 ≥ 0.3 norm (SAE {SAE}, seed 0" in pilot.app.clipboard


@pytest.mark.slow
async def test_a_generation_is_kept_with_the_sae_that_wrote_it(open_steer):
    async with open_steer(3) as (pilot, _):
        await press(pilot, "ctrl+r")
        await open_other(pilot)
        await press(pilot, "S")
        (kept,) = pilot.app.context.annotations.generations()
        assert kept.sae_ids == (SAE,)
        assert kept.weight_hashes == (hashlib.sha256(SAE.encode()).hexdigest(),)
        (one,) = kept.settings["interventions"]
        assert (one["target"], one["value"]) == (f"feature:{SAE}/3", 0.3)


@pytest.mark.slow
async def test_weights_that_were_replaced_since_lend_no_hash(open_steer, app_workspace: Workspace):
    async with open_steer(3) as (pilot, _):
        await press(pilot, "ctrl+r")
        weights = app_workspace.sae_dir(SAE) / "sae_weights.safetensors"
        weights.unlink()
        weights.write_text("other weights")
        await press(pilot, "S")
        (kept,) = pilot.app.context.annotations.generations()
        assert (kept.sae_ids, kept.weight_hashes) == ((SAE,), ())


@pytest.mark.slow
async def test_a_stack_of_another_sae_is_shown_as_such_and_not_run(open_steer):
    async with open_steer(3) as (pilot, session):
        await open_other(pilot)
        assert stack(pilot) == [f"#3  SAE {SAE}"]
        await press(pilot, "ctrl+r")
        assert f"feature 3 belongs to SAE '{SAE}', not to '{OTHER}'" in notices(pilot)
        assert written(session) == 0
        await pilot.app.go("steer", messages.SendToSteer(3))
        await settle(pilot)
        assert stack(pilot) == [f"#3  SAE {SAE}", "#3"]
        await press(pilot, "k", "x", "ctrl+r")
        assert session.asked[-1][1]["interventions"][0]["sae"] == OTHER
        assert session.asked[-1][1]["sae_id"] == OTHER


@pytest.mark.slow
async def test_a_stack_means_the_weights_that_it_was_made_for(open_steer, app_workspace: Workspace):
    async with open_steer(3) as (pilot, session):
        await press(pilot, "P", *"boats", "enter")
        weights = app_workspace.sae_dir(SAE) / "sae_weights.safetensors"
        weights.unlink()
        weights.write_text("other weights")
        pilot.app.context.publish(messages.SaeChanged(SAE, ready=True))
        await settle(pilot)
        assert stack(pilot) == [f"#3  earlier weights of {SAE}"]
        await press(pilot, "ctrl+r")
        assert "had other weights" in notices(pilot)
        assert written(session) == 0
        await press(pilot, "x", "p")
        assert f"earlier weights of {SAE}"[:19] in screen_text(pilot)


@pytest.mark.slow
async def test_presets_say_their_sae_and_one_without_asks_before_it_is_used(open_steer):
    async with open_steer() as (pilot, session):
        annotations = pilot.app.context.annotations
        plain = {"op": "add", "value": 0.5, "unit": "latent", "scope": "all"}
        annotations.save_preset("a new", [{"target": f"feature:{OTHER}/7", **plain}])
        annotations.save_preset("b old", [{"target": "feature:7", **plain}])
        annotations.save_preset("c bad", [{"target": "7"}])
        await press(pilot, "p")
        text = screen_text(pilot)
        assert OTHER in text
        assert "unknown" in text
        assert "cannot be read" in text
        await press(pilot, "j", "enter")
        assert isinstance(pilot.app.screen, Confirm)
        await press(pilot, "n")
        assert stack(pilot) == []
        await press(pilot, "p", "j", "enter", "y", "ctrl+r")
        assert session.asked[-1][1]["interventions"][0]["sae"] == SAE
        await press(pilot, "p", "enter")
        assert stack(pilot) == [f"#7  SAE {OTHER}"]


async def test_a_preset_has_the_constraint_of_its_text(open_steer):
    async with open_steer(3) as (pilot, session):
        await press(pilot, "U", *"0.05", "enter", "P", *"held", "enter")
        (kept,) = pilot.app.context.annotations.presets()
        assert (kept.plausible, kept.kl_budget) == (0.05, None)
        await press(pilot, "U", "ctrl+u", "enter", "P", *"free", "enter")
        for name, plausible in (("free", None), ("held", 0.05), ("free", None)):
            await press(pilot, "p")
            assert "plausible 0.05 · #3" in screen_text(pilot)
            await press(pilot, *([] if name == "free" else ["j"]), "enter", "ctrl+r")
            assert session.asked[-1][1].get("plausible") == plausible


@pytest.mark.slow
async def test_the_screen_says_how_the_prompt_was_read_and_the_saved_text_keeps_it(open_steer):
    async with open_steer(3) as (pilot, _):
        await press(pilot, "ctrl+r")
        assert "3 tokens, BOS added" in screen_text(pilot)
        await press(pilot, "S")
        (kept,) = pilot.app.context.annotations.generations()
        assert (kept.settings["prompt_tokens"], kept.settings["bos_added"]) == (3, True)


@pytest.mark.slow
async def test_an_opened_text_shows_what_was_read_in_it(open_steer):
    async with open_steer(3) as (pilot, session):
        await press(pilot, "ctrl+r")
        before = [one.text_to_copy() for one in pilot.app.screen.query(StreamText)]
        await press(pilot, "S", "K", "enter")
        assert "saved 20" in heading(pilot)
        assert [one.text_to_copy() for one in pilot.app.screen.query(StreamText)] == before
        assert screen_text(pilot).count("#3 peaks at") == 2
        await press(pilot, "l")
        assert session.asked[-1][1]["baseline"] is True
        assert screen_text(pilot).count("#3 peaks at") == 2


async def test_an_opened_text_brings_back_its_whole_seed(open_steer):
    async with open_steer(3) as (pilot, _):
        seed = pilot.app.screen.query_one("#steer-seed", Field)
        seed.value = "1234567891"
        await press(pilot, "ctrl+r", "S")
        seed.value = "0"
        await press(pilot, "K", "enter")
        assert seed.value == "1234567891"


async def test_an_opened_text_is_not_saved_again_without_what_wrote_it(open_steer):
    async with open_steer(3) as (pilot, _):
        await press(pilot, "ctrl+r", "S", "K", "enter", "S")
        assert "saved already" in notices(pilot)
        (kept,) = pilot.app.context.annotations.generations()
        assert kept.sae_ids == (SAE,)


def test_texts_that_were_kept_without_tokens_part_at_a_word():
    def shown(baseline: str, steered: str, *, stopped: bool = False) -> tuple[Passage, ...]:
        pair = Sample(SideText(baseline), SideText(steered))
        done = PassageDone(0, baseline, steered, samples=(pair,), stopped=stopped)
        plan = Plan("The harbour", ((),), (), SamplingSettings())
        board = Board(plan, [done], started=1)
        assert not any(one.text for one in board.baselines)  # nothing was read in them
        return tuple(board.passages(side, None)[0] for side in ("baseline", "steered"))

    plain, steered = shown(" is at sea.", " is at home.\n")
    assert (plain.parts, plain.notes) == (2, ())
    assert (steered.parts, steered.notes) == (2, ("parts at word 3",))
    assert "".join(steered.tokens) == " is at home.\n"
    assert shown(" at sea", " at sea")[1].notes == ("the same text",)
    assert shown("", " at sea")[1].notes == ()
    assert shown(" at sea", " at", stopped=True)[1].notes == ()


def saved(**metrics: object) -> SavedGeneration:
    settings = {"interventions": [parse_intervention("3=+0.5max").as_json()]}
    given = {"id": 1, "created": 0.0, "model_id": "sample", "revision": None, "device": "cpu"}
    given |= {"sae_ids": [SAE], "weight_hashes": [], "versions": {}, "preset": None, "seed": 0}
    texts = {"prompt": "The harbour", "baseline": " is at sea.", "steered": " is at home."}
    return SavedGeneration(**given, **texts, settings=settings, metrics=metrics)  # type: ignore[arg-type]


def test_what_is_read_in_a_text_is_kept_as_it_is():
    acts, promoted = ((0.5, 8.125, 0.0),), ((-9.5, -6.25),)
    own = {"targets": ("feature:3",), "acts": acts, "perplexity": 21.5, "distinct_2": 1.0}
    plain = SideText(" is at sea.", (" is", " at", " sea."), **own)  # type: ignore[arg-type]
    steered = replace(
        plain, text=" is at home.", tokens=(" is", " at", " home."), kl=0.25, promoted=promoted
    )
    kept = json.loads(json.dumps(as_kept(Sample(plain, steered))))
    found = sample_of_saved(saved(kl=0.25, perplexity=21.5, **kept))
    assert found == Sample(plain, steered)


def test_of_many_targets_the_first_are_kept():
    tokens = tuple(f" {number}" for number in range(2000))
    targets = tuple(f"feature:{number}" for number in range(9))
    text = SideText("".join(tokens), tokens, targets, tuple((1.0,) * 2000 for _ in targets))
    readings = as_kept(Sample(text, text))["readings"]
    assert readings["targets"] == ["feature:0", "feature:1"]
    assert len(readings["steered"]["acts"]) == 2
    assert as_kept(Sample(SideText(" a"), SideText(" b"))) == {}


@pytest.mark.parametrize(
    "readings",
    [
        None,
        7,
        {"targets": ["feature:3"]},
        {"targets": ["feature:3"], "baseline": {}, "steered": {"tokens": [" is"], "acts": [["x"]]}},
        {
            "targets": ["feature:3"],
            "baseline": {},
            "steered": {"tokens": [" is"], "acts": [[1, 2]]},
        },
        {"targets": 3, "baseline": {}, "steered": {}},
    ],
)
def test_a_saved_text_without_readings_is_shown_and_says_how_to_have_them(readings):
    one = saved(kl=0.25, readings=readings) if readings is not None else saved(kl=0.25)
    shown = sample_of_saved(one)
    assert (shown.baseline.text, shown.steered.text) == (" is at sea.", " is at home.")
    assert (shown.steered.kl, shown.steered.acts) == (0.25, ())
    done = PassageDone(0, one.baseline, one.steered, samples=(shown,))
    board = Board(plan_of(one), [done], started=1, saved=True)
    (passage,) = board.passages("steered", None)
    assert passage.notes[-1].startswith("ctrl+r generates it again")
    assert "again" not in " ".join(board.passages("baseline", None)[0].notes)
