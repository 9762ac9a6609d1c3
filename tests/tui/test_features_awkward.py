"""The Features screen on what a terminal must not obey, and on an index that cannot be read."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from mi_crow.store.workspace import Workspace
from tests.helpers.awkward_index import DEAD, FEATURE, SAE, TOKENS, make_awkward_index
from tests.helpers.hostile_workspace import obeyed
from tests.helpers.index_fixture import make_index
from tests.tui.driving import jump, press, screen_text, settle
from tui.screens.features.detail import FeatureDetailPane

RunApp = Callable[..., AbstractAsyncContextManager[Any]]
SIZES = [(80, 24), pytest.param((200, 60), marks=pytest.mark.slow)]


@pytest.fixture
def awkward(empty_workspace: Workspace) -> Workspace:
    make_awkward_index(empty_workspace)
    return empty_workspace


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_nothing_in_the_index_is_obeyed(
    run_app: RunApp, awkward: Workspace, size: tuple[int, int]
) -> None:
    async with run_app(awkward, size=size, sae_id=SAE) as pilot:
        await press(pilot, "2")
        await jump(pilot, FEATURE)
        pane = pilot.app.screen.query_one(FeatureDetailPane)
        assert pane.feature == FEATURE
        seen = ""
        for _ in TOKENS:
            text = screen_text(pilot)
            assert obeyed(text) == []
            assert max(map(len, text.splitlines())) <= size[0]
            seen += text
            await press(pilot, "j")
        assert "␛[31mred␛[0m" in seen
        assert "[bold]keel[/bold]" in seen
        assert "日本語" in seen
        await press(pilot, "escape", "slash", *"esrever", "enter")
        assert obeyed(screen_text(pilot)) == []


@pytest.mark.slow
async def test_a_feature_that_never_fires_says_so(run_app: RunApp, awkward: Workspace) -> None:
    async with run_app(awkward, size=(120, 40), sae_id=SAE) as pilot:
        await press(pilot, "2")
        await jump(pilot, DEAD)
        text = screen_text(pilot)
        assert "never fires on the indexed tokens" in text
        assert "It never fires." in text


@pytest.mark.slow
@pytest.mark.parametrize("size", [(80, 24)], ids=str)
async def test_co_firing_from_a_sample_says_so(
    run_app: RunApp, awkward: Workspace, size: tuple[int, int]
) -> None:
    with duckdb.connect(str(awkward.index_path(SAE))) as connection:
        connection.execute("INSERT INTO meta VALUES ('coactivation_tokens', '1200')")
    async with run_app(awkward, size=size, sae_id=SAE) as pilot:
        await press(pilot, "2")
        await jump(pilot, FEATURE)
        assert "of 1,200 sampled tokens" in screen_text(pilot)


def _older(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE meta SET value = '1' WHERE key = 'schema_version'")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200_000])


@pytest.mark.parametrize(
    ("spoil", "says"), [(_older, "of the older schema 1"), (_cut, "is damaged")], ids=["old", "cut"]
)
async def test_an_index_that_cannot_be_read_offers_to_build_it_again(
    run_app: RunApp, awkward: Workspace, spoil: Any, says: str
) -> None:
    spoil(awkward.index_path(SAE))
    async with run_app(awkward, size=(200, 40), sae_id=SAE) as pilot:
        await press(pilot, "2")
        text = screen_text(pilot)
        assert f"{SAE} cannot be opened" in text
        assert says in text
        assert "n i on the SAE rebuilds it" in text
        make_index(awkward, SAE)  # as the job does
        pilot.app.look_now()
        await settle(pilot)
        assert "cannot be opened" not in screen_text(pilot)


@pytest.mark.slow
async def test_an_index_is_read_while_it_is_built_again(
    run_app: RunApp, awkward: Workspace
) -> None:
    async with run_app(awkward, size=(120, 40), sae_id=SAE) as pilot:
        await press(pilot, "2")
        for seed in range(3):
            make_index(awkward, SAE, n_features=64 + seed, seed=seed)
            await press(pilot, "j", "b")  # the old file is gone and still read
            pilot.app.look_now()
            await settle(pilot)
            assert pilot.app.context.features.meta().n_features == 64 + seed
            await jump(pilot, 63)
            assert "#63" in screen_text(pilot)
        assert pilot.app.screen.query_one(FeatureDetailPane).feature == 63
