"""SAEs over several layers: which one a feature is of, wherever features are listed."""

from contextlib import asynccontextmanager

import pytest

from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.features.catalogue import DEFAULT, LAYER
from mi_crow.mechanistic.features.records import FeatureRow
from mi_crow.store.json_object import JsonObject
from mi_crow.store.workspace import Workspace
from tests.helpers.layered_index import FIRSTS, PLAIN, make_layered_index
from tests.tui.driving import press, screen_text, settle, table
from tui import messages
from tui.screens.inspect.differences import DifferencesPopup
from tui.screens.inspect.inspection import Inspection
from tui.screens.inspect.rows import COLUMNS, feature_rows
from tui.screens.steer.stack import feature_candidate
from tui.widgets.lists.layers import brief_layer, layer_words
from tui.widgets.lists.row_list import RowList

CLT, OLD = "clt", "old-crosscoder"
DEFAULT_HERE = (DEFAULT[0], LAYER, *DEFAULT[1:])


@pytest.fixture
def open_layered(run_app, tmp_path):
    """`async with open_layered(sae_id, size) as pilot`: Features, on that SAE's index."""
    workspace = Workspace.open(tmp_path / "ws")
    make_layered_index(workspace, CLT)
    make_layered_index(workspace, OLD, shared=True, schema=3)
    Annotations(workspace.annotations_path).set_concept(CLT, FIRSTS[1], "gardens")

    @asynccontextmanager
    async def run(sae_id: str = CLT, size: tuple[int, int] = (80, 24)):
        async with run_app(workspace, size=size, sae_id=sae_id) as pilot:
            await press(pilot, "2")
            yield pilot

    return run


def shown(pilot) -> list[str]:
    placed = table(pilot).layout_now
    return [*(column.name for column, _ in placed.columns), *placed.left_out]


async def test_what_is_told_of_layers_takes_no_lines_from_the_related_features(open_layered):
    async with open_layered(size=(120, 40)) as pilot:
        for name in ("neighbours", "coactive"):
            assert pilot.app.screen.query_one(f"#related-{name}", RowList).size.height >= 2


async def test_a_comparison_in_a_narrow_terminal_has_the_layers_whole(open_layered):
    async with open_layered() as pilot:
        table(pilot).marks.toggle(FIRSTS[0] + 1)
        table(pilot).marks.toggle(FIRSTS[1])
        await press(pilot, "equals_sign")
        [line] = [line for line in screen_text(pilot).splitlines() if " of tokens" in line]
        assert "· layer 0 " in line
        assert "· layer 2 " in line


async def test_the_table_has_a_column_of_layers(open_layered):
    async with open_layered(size=(120, 40)) as pilot:
        assert table(pilot).columns == DEFAULT_HERE
        await press(pilot, "slash", *"layer", "colon", "2", "enter")
        assert table(pilot).row_count == 30 - sum(f % 11 == 0 for f in range(24, 50))
        await pilot.app.go("features", messages.OpenFeature(FIRSTS[1]))
        await settle(pilot)
        text = screen_text(pilot)
        assert "layer mlp_in.2" in text
        assert "norms █▃" in text
        await press(pilot, "vertical_line", "j", "space", "enter")  # not wanted
        assert set(table(pilot).columns) == set(DEFAULT)
        saved = pilot.app.screen.state()
        assert saved["layers_hidden"] is True
        await press(pilot, "vertical_line", "D", "enter")
        assert table(pilot).columns == DEFAULT_HERE
        pilot.app.screen.restore(JsonObject.of(saved, "a state"))
        assert pilot.app.screen.state()["layers_hidden"] is True


@pytest.mark.slow
async def test_another_sae_has_the_columns_that_it_had(open_layered):
    async with open_layered(size=(120, 40)) as pilot:
        await press(pilot, "vertical_line", "j", "j", "space", "enter")  # without the density
        assert table(pilot).columns[:3] == ("feature", LAYER, "fires")
        pilot.app.open_sae(PLAIN)
        await settle(pilot)
        assert table(pilot).columns[:2] == ("feature", "fires")


@pytest.mark.slow
async def test_an_index_of_before_says_so(open_layered):
    async with open_layered(OLD, size=(120, 40)) as pilot:
        assert "layer not in this index: build it again" in screen_text(pilot)
        await press(pilot, "slash", *"layer", "colon", "2")
        assert "does not say which layer" in screen_text(pilot).replace("\n", " ")


@pytest.mark.slow
async def test_concepts_and_the_stack_name_the_layer(open_layered):
    async with open_layered() as pilot:
        await press(pilot, "5")
        assert "mlp_in.2" in screen_text(pilot)
        await pilot.app.go("steer", messages.SendToSteer(FIRSTS[1], CLT))
        await settle(pilot)
        assert "layer 2 · g" in screen_text(pilot)
        await press(pilot, "n", *"gard")
        assert "layer 2 · gardens" in screen_text(pilot)
        pilot.app.open_sae(PLAIN)
        await settle(pilot)
        await press(pilot, "escape", "escape", "5")
        concepts = pilot.app.screen.query_one("#concepts-list", RowList)
        assert LAYER not in [column.name for column in concepts.shown_columns()]


def row(feature: int, **more: str) -> FeatureRow:
    return FeatureRow(feature, 5, 0.1, 2.0, 1.0, "gardens", None, None, more)


def test_lists_of_inspect_take_the_layer_from_the_session_and_the_index():
    at = [column.name for column in COLUMNS].index(LAYER)
    known = {3: row(3, layer="mlp_in.12"), 4: row(4)}
    rows = feature_rows([(3, 1.0), (4, 1.0), (5, 1.0)], known, layers={5: "tuned:resid_post.7"})
    assert [one.cells[at].text for one in rows] == ["12", "", "tuned"]
    assert Inspection().extra_columns == ()
    assert Inspection(layers={5: "mlp_in.3"}).extra_columns == (LAYER,)


def test_where_nothing_else_says_it_the_words_do():
    names = ("mlp_in.12", "tuned:resid_post.7", "model.embed", "")
    assert [brief_layer(name) for name in names] == ["12", "tuned", "model.embed", ""]
    assert [layer_words(name) for name in names] == ["layer 12", "tuned 7", "model.embed", ""]
    assert feature_candidate(row(3, layer="mlp_in.1")).note == "layer 1 · gardens"
    assert feature_candidate(row(3)).note == "gardens"


def test_what_is_brought_has_its_room_before_other_columns():
    def shown(*brought: str, width: int) -> list[str]:
        rows = RowList(COLUMNS)
        rows.bring(*brought)
        return [column.name for _, column in rows._fitting(width)]

    assert shown(width=32) == ["feature", "value", "share", "name"]
    assert shown(LAYER, width=32) == ["feature", "value", LAYER, "name"]
    assert shown(LAYER, width=60) == ["feature", "value", "share", "density", LAYER, "name"]
    assert shown(LAYER, width=20) == ["feature", "value", "name"]


def test_comparisons_of_texts_name_the_layer():
    row = {"feature": 7, "auroc": 0.9, "effect": 1.0, "mean_for": 2.0, "mean_against": 0.0}
    found = {"sae_id": CLT, "features": [{**row, "name": "gardens", "layer": "mlp_in.3"}]}
    [line] = DifferencesPopup(found, {}, None, lambda: None)._rows()
    assert [cell.text for cell in line.cells][-2:] == ["3", "gardens"]
