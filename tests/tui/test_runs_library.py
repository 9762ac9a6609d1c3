"""The popup over published SAEs on Runs, and what it puts into the form of an import."""

import pytest

from mi_crow.mechanistic.sae.library.published import search
from tests.tui.driving import press, screen_text, settle
from tui.app import MiCrowApp
from tui.screens.runs import library
from tui.screens.runs.library import LibraryPopup
from tui.terminal import frames
from tui.widgets.field import Field
from tui.widgets.lists.row_list import ListHeading, RowList
from tui.widgets.lists.sorted_list import SortedList

SEARCH = "gemma-2-2b layer:12 width:65k l0<60"


async def opened(pilot) -> None:
    await press(pilot, "1", "n", "l")
    assert isinstance(pilot.app.screen, LibraryPopup)
    pilot.app.screen.query_one(Field).value = SEARCH
    await settle(pilot)


@pytest.mark.parametrize(
    "size",
    [(80, 24), pytest.param((200, 60), marks=pytest.mark.slow)],
    ids=["small", "large"],
)
def test_published_saes(app_workspace, snap_compare, size):
    assert snap_compare(MiCrowApp(app_workspace), run_before=opened, terminal_size=size)


async def test_the_chosen_one_goes_into_the_form_of_an_import(app_workspace):
    async with MiCrowApp(app_workspace).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        rows = pilot.app.screen.query_one(RowList)
        assert "4 SAEs" in screen_text(pilot)
        await press(pilot, "down", "down")
        source = rows.key
        assert source is not None
        await press(pilot, "enter")
        texts = {field.id: field.value for field in pilot.app.screen.query(Field)}
        assert source in texts.values()
        assert "google/gemma-2-2b" in texts.values()
        # A value longer than its field is seen, with its end at the cursor.
        assert source[-30:] in screen_text(pilot)


@pytest.mark.slow
async def test_it_is_drawn_once_it_is_read(app_workspace, monkeypatch):
    monkeypatch.setattr(frames, "HELD_S", 60.0)
    monkeypatch.setattr(library, "is_offline", lambda: False)  # all that is known, not the cache's
    drawn: list[int] = []
    render = SortedList.render_lines

    def noting(self: SortedList, crop):
        drawn.append(self.row_count)
        return render(self, crop)

    monkeypatch.setattr(SortedList, "render_lines", noting)
    async with MiCrowApp(app_workspace).run_test(size=(80, 24)) as pilot:
        await press(pilot, "1", "n")
        drawn.clear()
        await press(pilot, "l")
        assert drawn
        assert all(drawn)


def shown(pilot) -> list[str]:
    return [row.key for row in pilot.app.screen.query_one(RowList).rows]


async def search_for(pilot, query: str) -> None:
    pilot.app.screen.query_one(Field).value = query
    await settle(pilot)


async def test_a_key_and_a_click_on_a_title_put_all_that_was_found_in_order(app_workspace):
    async with MiCrowApp(app_workspace).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await search_for(pilot, "")  # many more than the list holds
        await press(pilot, "tab", "o", "o")
        assert shown(pilot)[0] == search("sort:-width", 1).saes[0].source
        await press(pilot, "O")
        assert shown(pilot)[0] == search("sort:width", 1).saes[0].source
        assert "L0" in screen_text(pilot)
        heading = pilot.app.screen.query_one(ListHeading)
        place = str(heading.render()).index("L0") + 1
        await pilot.click(heading, offset=(place, 0))
        await settle(pilot)
        assert shown(pilot)[0] == search("sort:-l0", 1).saes[0].source
        assert "L0↓" in screen_text(pilot)


async def test_in_an_order_that_leaves_the_chosen_one_out_the_first_one_is_chosen(app_workspace):
    async with MiCrowApp(app_workspace).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await search_for(pilot, "")
        await press(pilot, "tab")
        rows = pilot.app.screen.query_one(RowList)
        chosen = rows.key
        await press(pilot, "o")
        assert chosen not in shown(pilot)
        assert rows.cursor == 0
        assert rows.scroll_offset.y == 0
        assert "o orders it" in screen_text(pilot)


async def test_what_tells_rows_apart_is_seen_in_80_columns(app_workspace):
    async with MiCrowApp(app_workspace).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await search_for(pilot, "gemma-2-2b layer:12 width:65k sae_bench")
        lines = [line for line in screen_text(pilot).splitlines() if "65.5k" in line]
        assert len(lines) > 8
        assert len(set(lines)) == len(lines)


async def test_offline_the_list_is_of_the_hubs_cache(app_workspace, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    name = "models--google--gemma-scope-2b-pt-res/snapshots/abc/layer_12/width_16k/average_l0_82"
    (tmp_path / name).mkdir(parents=True)
    (tmp_path / name / "params.npz").write_bytes(b"0")
    async with MiCrowApp(app_workspace).run_test(size=(80, 24)) as pilot:
        await press(pilot, "1", "n", "l")
        await settle(pilot)
        assert "1 SAE · offline: what the hub's cache holds" in screen_text(pilot)
        assert "nothing to download" in screen_text(pilot)
        await search_for(pilot, "cached:yes gpt2")
        assert "cache on this machine holds no such SAE" in screen_text(pilot)


async def test_what_does_not_fit_on_this_machine_is_said(app_workspace, monkeypatch):
    monkeypatch.setattr("tui.screens.runs.library.available_memory", lambda: 10**9)
    async with MiCrowApp(app_workspace).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await search_for(pilot, "mntss/clt-131k")
        assert "~367 GB of memory, only 1.0 GB free" in screen_text(pilot)


async def test_a_mistake_in_the_search_is_told_where_it_is_typed(app_workspace):
    async with MiCrowApp(app_workspace).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        pilot.app.screen.query_one(Field).value = "layr:3"
        await settle(pilot)
        assert "'layr' is not a condition" in screen_text(pilot)
        await press(pilot, "escape")
        assert not isinstance(pilot.app.screen, LibraryPopup)


async def test_half_a_condition_is_told_above_the_list_alone(app_workspace):
    async with MiCrowApp(app_workspace).run_test(size=(80, 24), notifications=True) as pilot:
        await press(pilot, "1", "n", "l")
        await search_for(pilot, "kind:cl")
        assert "'cl' is not a kind of SAE" in screen_text(pilot)
        assert not list(pilot.app.screen.query("Toast"))
        await search_for(pilot, "kind:clt")
        assert "is no kind" not in screen_text(pilot)
