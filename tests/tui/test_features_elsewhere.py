"""The open feature in other SAEs, the pane that follows the cursor, the scores in its heading."""

import asyncio
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mi_crow.mechanistic.features import similar
from mi_crow.mechanistic.features.records import OfTwoModels
from mi_crow.store.workspace import Workspace
from tests.helpers.index_fixture import make_index
from tests.tui.driving import jump, notices, press, screen_text, settle, table
from tests.tui.test_features_index import SAE
from tui.app import MiCrowApp
from tui.screens.features import elsewhere
from tui.screens.features.content import head_content
from tui.screens.features.detail import FeatureDetailPane
from tui.screens.features.elsewhere import OtherSaes, others_of
from tui.widgets.lists.row_list import RowList

WIDE = "wider-sae"


def weights(folder: Path, rows: torch.Tensor) -> None:
    save_file({"W_dec": rows.contiguous()}, str(folder / "sae_weights.safetensors"))


@pytest.fixture
def two_saes(empty_workspace: Workspace) -> Workspace:
    """Feature n of the first is feature 63 - n of the second, but for some noise."""
    rows = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
    for sae_id, values in ((SAE, rows), (WIDE, rows.flip(0) + 0.1 * noise)):
        make_index(empty_workspace, sae_id)
        weights(empty_workspace.saes_dir / sae_id, values)
    return empty_workspace


def found(pilot) -> list[str]:
    """The rows on the same feature in other SAEs."""
    rows = pilot.app.screen.query_one("#related-elsewhere", RowList).rows
    return [
        " ".join(
            f"{cell.text}{''.join(text for text, _ in cell.more)}"
            for cell in row.cells
            if cell.text
        )
        for row in rows
    ]


async def test_the_same_feature_elsewhere_is_shown_and_opened(run_app, two_saes: Workspace) -> None:
    async with run_app(two_saes, size=(120, 40), sae_id=SAE) as pilot:
        app = pilot.app
        assert isinstance(app, MiCrowApp)
        app.context.annotations.set_concept(WIDE, 60, "rigging")
        await press(pilot, "2")
        await jump(pilot, 3)
        [row] = found(pilot)
        assert re.fullmatch(rf"#60 0\.99\d? {WIDE} rigging", row)
        assert "In other SAEs" in screen_text(pilot)
        app.screen.query_one("#related-elsewhere", RowList).focus()
        await press(pilot, "enter")
        assert app.context.sae_id == WIDE
        assert app.screen.query_one(FeatureDetailPane).feature == 60
        assert found(pilot)[0].startswith("#3 0.99")
        await press(pilot, "backspace")
        assert app.context.sae_id == SAE
        assert app.screen.query_one(FeatureDetailPane).feature == 3


@pytest.mark.slow
async def test_an_sae_without_index_or_weights_says_so(run_app, two_saes: Workspace) -> None:
    (two_saes.saes_dir / WIDE / "features.duckdb").unlink()
    async with run_app(two_saes, size=(120, 40), sae_id=SAE) as pilot:
        await press(pilot, "2")
        await jump(pilot, 3)
        pilot.app.screen.query_one("#related-elsewhere", RowList).focus()
        await press(pilot, "enter")
        assert f"SAE {WIDE} has no feature index" in notices(pilot)
        (two_saes.saes_dir / WIDE / "sae_weights.safetensors").unlink()
        await press(pilot, "escape", "j")
        assert found(pilot) == [f"– {WIDE} its weights are not there"]


@pytest.mark.slow
async def test_escape_keeps_a_filter_that_is_not_seen(run_app, two_saes: Workspace) -> None:
    (two_saes.saes_dir / WIDE / "features.duckdb").unlink()
    async with run_app(two_saes, size=(120, 40), sae_id=SAE) as pilot:
        await press(pilot, "2", "slash", *"max>1", "enter")
        assert "esc all features" in screen_text(pilot)
        pilot.app.open_sae(WIDE)
        await settle(pilot)
        assert "has no feature index yet" in screen_text(pilot)
        assert "all features" not in screen_text(pilot)
        await press(pilot, "escape")
        pilot.app.open_sae(SAE)
        await settle(pilot)
        assert "max>1" in screen_text(pilot)


@pytest.mark.slow
async def test_alone_in_its_workspace_an_sae_has_no_such_list(open_index) -> None:
    async with open_index() as pilot:
        assert "In other SAEs" not in screen_text(pilot)


def test_only_saes_of_the_same_model_and_width_are_asked(two_saes: Workspace) -> None:
    from dataclasses import replace

    own, other = two_saes.list_saes()
    deeper = replace(other, sae_id="deeper", layer="model.layers.9")
    assert others_of(own, [own, deeper, other]) == (other, deeper)
    assert others_of(own, [own, replace(other, model_id="another")]) == ()
    assert others_of(own, [own, replace(other, n_inputs=3)]) == ()
    two_layers = replace(
        other, n_inputs=2 * other.n_inputs, layers=("resid_post.0", "resid_post.1")
    )
    assert others_of(own, [own, two_layers]) == (two_layers,)
    assert others_of(None, [other]) == ()
    many = [replace(other, sae_id=f"sae-{n}") for n in range(20)]
    assert len(others_of(own, [own, *many])) == elsewhere.MOST


def test_a_decoder_is_read_once_until_it_changes(
    two_saes: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mi_crow.mechanistic.concepts.annotations import Annotations

    read = []
    real = similar.similar_features
    monkeypatch.setattr(similar, "similar_features", lambda *all: read.append(all) or real(*all))
    own, other = two_saes.list_saes()
    known, names = OtherSaes(), Annotations(two_saes.annotations_path)
    [first] = known.look(own.path, 3, [other], names)
    assert (first.sae_id, first.feature) == (WIDE, 60)
    assert known.look(own.path, 3, [other], names) == (first,)
    assert len(read) == 1
    weights(other.path, torch.randn(64, 16, generator=torch.Generator().manual_seed(0)))
    [changed] = known.look(own.path, 3, [other], names)
    assert (changed.feature, len(read)) == (3, 2)
    monkeypatch.setattr(elsewhere, "_MOST_BYTES", 100)
    [large] = known.look(own.path, 4, [other], names)
    assert "too large" in large.trouble
    assert "--similar-in wider-sae" in large.trouble


@pytest.mark.slow
async def test_the_pane_follows_when_the_cursor_rests(
    open_index, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_index() as pilot:
        screen = pilot.app.screen
        pane = screen.query_one(FeatureDetailPane)
        shown = []
        real = pane.show
        monkeypatch.setattr(pane, "show", lambda read: shown.append(read.feature) or real(read))
        before = pane.feature
        with monkeypatch.context() as patch:
            patch.setattr("tui.threads.monotonic", lambda: 0.0)  # no rest ends
            for _ in range(4):
                await pilot.press("j")
            assert shown == []
        assert pane.feature == before
        assert screen.open_feature == table(pilot).feature  # what `t` and `s` act on
        assert shown == []
        await settle(pilot)
        assert shown == [table(pilot).feature]
        await asyncio.sleep(0.25)
        await settle(pilot)
        assert len(shown) == 1


async def test_the_heading_has_scores_with_honest_digits(open_index) -> None:
    from dataclasses import replace

    async with open_index() as pilot:
        store = pilot.app.context.features
        store_notes = pilot.app.context.annotations
        store_notes.set_concept(SAE, 3, "a guess", confidence=0.62, source="auto")
        store.refresh_concepts()
        detail = store.detail(3)
        best = replace(detail.labels[0], auroc=0.9996, lift=4.21)
        second = replace(best, label="weather", auroc=0.81, lift=None)
        text = head_content(replace(detail, labels=(best, second)), 78).plain.splitlines()
        assert text[0] == "#3  a guess auto 0.62"
        assert text[2] == f"held-out AUROC {best.label} 0.999 lift 4.2 · weather 0.81"
        assert "kurtosis" not in text[1]
        assert "kurtosis" in head_content(detail, 200).plain.splitlines()[1]
        of_one = replace(detail, models=OfTwoModels("tuned", 0.98, 0.1, 0.02))
        assert "origin tuned · relative norm 0.98" in head_content(of_one, 100).plain
        assert max(map(len, text)) <= 78


@pytest.mark.slow
@pytest.mark.parametrize(
    "size",
    [
        pytest.param((80, 24), id="small"),
        pytest.param((200, 60), id="large", marks=pytest.mark.slow),
    ],
)
def test_a_feature_with_others_like_it(snap_compare, two_saes: Workspace, size) -> None:
    app = MiCrowApp(two_saes, SAE)

    async def drive(pilot) -> None:
        await settle(pilot)
        app.context.annotations.set_concept(WIDE, 60, "rigging")
        await press(pilot, "2")
        await jump(pilot, 3)

    assert snap_compare(app, terminal_size=size, run_before=drive)
