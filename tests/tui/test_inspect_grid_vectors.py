"""Vectors as rows of Inspect's grid, and the vectors of Control."""

from mi_crow.errors import UserError
from tests.tui.driving import notices, press, screen_text, settle
from tests.tui.stand_ins import give_index
from tests.tui.test_control_screen import session as session
from tests.tui.vector_files import add_vector
from tui import messages
from tui.screens.inspect.popups import GridPopup
from tui.widgets.area import Area
from tui.widgets.field import Field
from tui.widgets.forms.popup import FormPopup
from tui.widgets.lists.row_list import RowList

TEXT = "The harbour was quiet."


async def test_a_vector_is_a_row_above_the_features_and_leaves_again(run_app, app_workspace):
    for name in ("calm", "storm"):
        add_vector(app_workspace, name)
    async with run_app(app_workspace, size=(120, 40), sae_id="demo-topk") as pilot:
        scripted = give_index(pilot.app)
        await settle(pilot)
        await press(pilot, "3")
        pilot.app.screen.query_one(Area).text = TEXT
        await press(pilot, "ctrl+r", "m", "v")
        assert "calm" in screen_text(pilot)
        found = scripted.call("inspect", text=TEXT)
        acts = [0.0, -0.5, *(0.25 for _ in found["tokens"][3:]), 1.0]
        row = {"vector": "calm", "layer": "resid_post.2", "max_act": 1.0, "acts": acts}
        scripted.answers["inspect"] = {**found, "vectors": [row]}
        await press(pilot, "i")
        assert isinstance(pilot.app.screen, GridPopup)
        assert scripted.asked[-1][1]["vectors"] == ["calm"]
        text = screen_text(pilot)
        assert "→ calm resid_post.2" in text
        assert "-50" in text
        await press(pilot, "g", "l")
        assert "calm at resid_post.2" in screen_text(pilot)
        assert "-0.500 times the vector" in screen_text(pilot)
        await press(pilot, "x")
        assert "→ calm" not in screen_text(pilot)
        await press(pilot, "escape")
        scripted.error = UserError("vector 'storm' is for another width")
        await pilot.app.go("inspect", messages.VectorToInspect("storm"))
        await settle(pilot)
        assert "is for another width" in notices(pilot)
        scripted.error = None
        await press(pilot, "m")  # the grid alone, without the row that cannot be
        assert isinstance(pilot.app.screen, GridPopup)


async def test_control_makes_a_vector_here_and_shows_those_of_steer(
    run_app,
    app_workspace,
    session,
):
    add_vector(app_workspace, "calm")
    async with run_app(app_workspace, size=(120, 40), sae_id="demo-topk") as pilot:
        await pilot.app.go("steer", messages.VectorToSteer("calm"))
        await settle(pilot)
        await press(pilot, "6", "l")
        text = screen_text(pilot)
        rows = pilot.app.screen.query_one("#layers", RowList).rows
        steered = [row.key for row in rows if "◆ steered" in row.cells[0].more[1][0]]
        assert steered == ["model.layers.2"]
        assert "On the stack of Steer" in text
        assert "vector calm" in text
        await press(pilot, "k")
        await pilot.app.screen.run_action("vector")
        await settle(pilot)
        assert isinstance(pilot.app.screen, FormPopup)
        assert pilot.app.screen.query_one("#field-layers", Field).value == "model.layers.1.mlp"
        assert "demo" in screen_text(pilot)
        await press(pilot, "escape", "D")
        assert "calm" in screen_text(pilot)
        await press(pilot, "n")
        assert pilot.app.screen.query_one("#field-layers", Field).value == "model.layers.1.mlp"
        await press(pilot, "escape")
        await pilot.app.screen.run_action("capture")
        await settle(pilot)
        assert pilot.app.screen.query_one("#field-layers", Field).value == "model.layers.1.mlp"
