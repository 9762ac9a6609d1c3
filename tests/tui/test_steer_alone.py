"""Steer and Control without an SAE: the model of the newest run, or one that was chosen."""

from mi_crow.mechanistic.steering.interventions import parse_intervention
from mi_crow.store.workspace import Workspace
from tests.tui.conftest import NOW, RunApp, add_run
from tests.tui.driving import notices, press, screen_text, settle
from tests.tui.stand_ins import ScriptedSession
from tests.tui.vector_files import add_vector
from tui import messages
from tui.app import MiCrowApp
from tui.widgets.area import Area


async def test_without_an_sae_the_model_of_the_run_is_steered(
    run_app: RunApp, empty_workspace: Workspace
):
    add_run(empty_workspace, "demo", "sample", NOW)
    async with run_app(empty_workspace, (200, 40)) as pilot:
        app = pilot.app
        assert isinstance(app, MiCrowApp)
        session = ScriptedSession()
        app.context._session = session  # type: ignore[assignment]
        await app.go("steer", messages.LayerToSteer("model.layers.2"))
        await settle(pilot)
        app.screen.query_one("#steer-prompt", Area).text = "The harbour"
        await press(pilot, "ctrl+r")
        assert ("load", {"model": "sample", "revision": None, "device": "auto"}) in session.asked
        op, params = session.asked[-1]
        assert (op, params["sae_id"]) == ("generate", None)
        assert params["interventions"][0]["target"] == "layer:model.layers.2"
        text = screen_text(pilot)
        assert "sample without an SAE" in text
        assert "sample · no SAE · cpu" in text
        await app.go("steer", messages.SendToSteer(3, "smol-sae"))
        await settle(pilot)
        await press(pilot, "ctrl+r")
        assert "belongs to SAE 'smol-sae', which is not of this model" in notices(pilot)


async def test_a_model_is_chosen_from_the_palette_and_kept(open_steer):
    async with open_steer() as (pilot, session):
        await pilot.app.screen.run_action("model")
        await press(pilot, *"tiny", "enter")
        await pilot.app.go("steer", messages.VectorToSteer("calm"))
        await settle(pilot)
        await press(pilot, "ctrl+r")
        assert ("load", {"model": "tiny", "revision": None, "device": "auto"}) in session.asked
        assert session.asked[-1][1]["interventions"][0]["target"] == "vector:calm"
        await press(pilot, "S")
        (saved,) = pilot.app.context.annotations.generations()
        assert saved.sae_ids == ()
        await pilot.app.screen.run_action("model")
        await press(pilot, "ctrl+u", "delete", "enter")
        await press(pilot, "ctrl+r")
        assert session.asked[-1][1]["sae_id"] == "demo-topk"


async def test_vectors_and_swaps_keep_what_they_are_in_the_form(open_steer, app_workspace):
    add_vector(app_workspace, "calm")
    async with open_steer() as (pilot, _):
        await pilot.app.go("steer", messages.VectorToSteer("calm"))
        await settle(pilot)
        await press(pilot, "enter", "ctrl+r")
        (one,) = pilot.app.context.steered
        assert (one.target, one.value, one.unit) == ("vector:calm", 0.3, "norm")
        stack = pilot.app.screen
        stack.set_stack([parse_intervention("3=swap 0.3norm against 7+9")])  # type: ignore[attr-defined]
        await settle(pilot)
        await press(pilot, "enter", "ctrl+r")
        (one,) = pilot.app.context.steered
        assert [feature for feature, _ in one.rival_features] == [7, 9]
