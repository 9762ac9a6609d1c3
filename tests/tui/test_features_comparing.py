"""Features side by side: which ones, what fits, and what is said of each two."""

import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from mi_crow.mechanistic.features.comparing import Comparison, compare_features
from mi_crow.mechanistic.features.records import Example
from tests.helpers.index_fixture import make_index
from tests.tui.driving import jump, notices, press, screen_text, settle, table
from tests.tui.test_features_index import SAE
from tui.app import MiCrowApp
from tui.screens.features.compare_popup import ComparePopup, ComparisonView
from tui.screens.features.comparison import Room, comparison_lines
from tui.widgets.example_lines import Drawing, Folded


def with_weights(workspace) -> None:
    rows = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    save_file({"W_dec": rows}, str(workspace.saes_dir / SAE / "sae_weights.safetensors"))


def mark(pilot, *features: int) -> None:
    for feature in features:
        table(pilot).marks.toggle(feature)


def view(pilot) -> ComparisonView:
    return pilot.app.screen.query_one(ComparisonView)


def lines_of(found: Comparison) -> str:
    return "\n".join(line.plain for line in comparison_lines(found, 0, Room(80, 24)))


async def test_the_marked_are_compared(open_index, empty_workspace):
    async with open_index((160, 60)) as pilot:
        with_weights(empty_workspace)
        mark(pilot, 3, 17, 40)
        await press(pilot, "equals_sign")
        assert isinstance(pilot.app.screen, ComparePopup)
        folder = empty_workspace.saes_dir / SAE
        found = compare_features(pilot.app.context.features, [3, 17, 40], folder)
        text = screen_text(pilot)
        assert f"decoder cosine {found.pairs[0].cosine:.3f}" in text
        for side in found.sides:
            assert f"#{side.feature}  no name yet" in text
            assert f"{side.examples[0].activation:.2f} “" in text
        await press(pilot, "G")
        text = screen_text(pilot)
        assert "#40 without #17" in text
        assert "silent" in text
        await press(pilot, "escape")
        assert not isinstance(pilot.app.screen, ComparePopup)
    [pair, *_] = found.pairs
    assert "not among the strongest" not in lines_of(found)
    bounded = tuple(one._replace(at_most=12.18) for one in pair.only_first)
    text = lines_of(replace(found, pairs=(replace(pair, only_first=bounded),)))
    assert f"no text for certain; #{pair.second} not among the strongest" in text
    assert "≤ 12.18" in text


@pytest.mark.slow
async def test_without_marks_it_is_the_nearest(open_index):
    async with open_index((80, 24)) as pilot:
        await jump(pilot, 3)
        await press(pilot, "escape", "equals_sign")
        [near, *_] = pilot.app.context.features.detail(3).neighbours
        assert f"#3 · #{near.feature}" in screen_text(pilot)
        await press(pilot, "G")
        assert "No cosine: SAE 'fixture-sae' has no weights" in screen_text(pilot)


async def test_the_only_marked_one_is_compared_with_the_open_one(open_index):
    async with open_index((80, 24)) as pilot:
        await jump(pilot, 3)
        await press(pilot, "escape")
        mark(pilot, 17)
        await press(pilot, "equals_sign")
        assert {side.feature for side in view(pilot)._found.sides} == {3, 17}


@pytest.mark.slow
async def test_columns_that_do_not_fit_come_with_left_and_right(open_index):
    async with open_index((80, 24)) as pilot:
        mark(pilot, 3, 17, 40, 41)
        await press(pilot, "equals_sign")
        assert view(pilot).shown == range(2)
        assert "columns 1 to 2 of 4" in screen_text(pilot)
        await press(pilot, "l", "right", "l")
        assert view(pilot).shown == range(2, 4)
        assert "columns 3 to 4 of 4" in screen_text(pilot)
        assert "#41  no name yet" in screen_text(pilot)
        await press(pilot, "h")
        assert view(pilot).shown == range(1, 3)
        assert "← left" in screen_text(pilot)
        await pilot.resize_terminal(200, 60)
        await settle(pilot)
        assert "← left" not in screen_text(pilot)
        assert view(pilot).shown == range(4)
        assert "columns" not in screen_text(pilot).splitlines()[1]
        await pilot.resize_terminal(40, 12)
        await settle(pilot)
        assert len(view(pilot).shown) == 1


@pytest.mark.slow
async def test_more_marks_than_four_are_told(open_index):
    async with open_index((80, 24)) as pilot:
        mark(pilot, *range(5))
        await press(pilot, "equals_sign")
        assert "mark 2 to 4 to compare them" in notices(pilot)
        assert not isinstance(pilot.app.screen, ComparePopup)


@pytest.mark.parametrize(
    ("size", "keys"),
    [
        pytest.param((80, 24), (), id="small"),
        pytest.param((80, 24), ("ctrl+d",), id="small_pairs", marks=pytest.mark.slow),
        pytest.param((200, 60), (), id="large", marks=pytest.mark.slow),
        pytest.param((200, 60), ("G",), id="large_pairs", marks=pytest.mark.slow),
    ],
)
def test_a_comparison(snap_compare, empty_workspace, size, keys):
    make_index(empty_workspace, SAE)
    with_weights(empty_workspace)
    app = MiCrowApp(empty_workspace, SAE)

    async def drive(pilot) -> None:
        await settle(pilot)
        annotations = app.context.annotations
        annotations.set_concept(SAE, 3, "rigging of ships")
        annotations.set_concept(SAE, 40, "a name that is longer than its column is wide, by far")
        await press(pilot, "2")
        store = app.context.features
        assert store is not None
        store.refresh_concepts()
        mark(pilot, 3, 17, 40, 41)
        await press(pilot, "equals_sign", *keys)

    assert snap_compare(app, terminal_size=size, run_before=drive)


@pytest.mark.slow
async def test_what_a_bound_means_is_said_in_whole_in_a_narrow_window(open_index, empty_workspace):
    async with open_index((80, 24)) as pilot:
        folder = empty_workspace.saes_dir / SAE
        found = compare_features(pilot.app.context.features, [3, 17], folder)
    [pair] = found.pairs
    bounded = tuple(one._replace(at_most=12.18) for one in pair.only_first)
    why = "the weights cannot be read " * 4
    found = replace(found, pairs=(replace(pair, only_first=bounded),), no_cosine=why.strip())
    for width in (40, 58, 76):
        lines = comparison_lines(found, 0, Room(width, 24))
        assert all(line.cell_length <= width for line in lines)
        text = " ".join(line.plain.strip() for line in lines)
        assert text.endswith("features of the text, so at most this if it fires there")
        assert why.strip() in text


async def test_what_each_two_share_is_seen_without_a_scroll(open_index, empty_workspace):
    async with open_index((80, 24)) as pilot:
        with_weights(empty_workspace)
        mark(pilot, 3, 17, 40, 41)
        await press(pilot, "equals_sign")
        found = compare_features(
            pilot.app.context.features, [3, 17, 40, 41], empty_workspace.saes_dir / SAE
        )
        text = screen_text(pilot)
        assert len(found.pairs) == 6
        for pair in found.pairs:
            assert f"#{pair.first} #{pair.second} {pair.cosine:.3f}" in text
        numbers = {side.examples[0].document for side in found.sides[:2]}
        assert all(re.search(rf"doc(ument)? {n}\b", text) for n in numbers)


def test_the_number_of_a_document_is_never_cut():
    example = Example(4321, 0, 7.25, 0, [" harbourmaster"], [7.25], "", "a label of some length")
    for width in range(30, 90):
        [head, *_] = Drawing(8.0, width).windows(Folded(example, 3), 2)
        assert head.cell_length <= width
        assert re.search(r"doc(ument)? 4321\b", head.plain)
        assert "×3" in head.plain
