"""What fills large panes of Runs: grids of charts, distributions, tables, settings in columns."""

import numpy as np
import pytest
from textual.content import Content

from mi_crow.mechanistic.sae.evaluation.standing import Standing
from tui.screens.runs.detail import settings
from tui.screens.runs.figures.grid import chart_grid
from tui.screens.runs.figures.spread import activation_spread, density_spread, spread_chart
from tui.screens.runs.figures.tables import (
    files_table,
    label_bars,
    layers_table,
    standings_table,
    topics_table,
)
from tui.widgets.facts import beside
from tui.widgets.plot import Axis, Curve, chart, ticks


def lines_of(content: Content | None) -> list[str]:
    assert content is not None
    return content.plain.splitlines()


@pytest.mark.parametrize(
    ("low", "high", "height", "between"),
    [
        (0.0, 40.0, 12, [10.0, 20.0, 30.0]),
        (0.0, 40.0, 8, [20.0]),
        (0.0, 0.15, 9, [0.05, 0.1]),
        (-1.0, 1.0, 6, [0.0]),
        (0.0, 1.0, 5, []),
    ],
)
def test_ticks_are_round_and_apart(low, high, height, between):
    assert ticks(low, high, height) == pytest.approx(between)


def test_a_tick_is_named_and_ruled_behind_the_curve():
    axis, y = Axis("step", "{:.0f}".format), Axis("L0", "{:.0f}".format, 0.0)
    curve = Curve(((0.0, 40.0), (100.0, 0.0)))
    lines = [line.plain for line in chart(axis, y, 40, 12, [curve])]
    named = [line.split("│")[0].strip() for line in lines[:12]]
    assert [name for name in named if name] == ["40", "30", "20", "10", "0"]
    ruled = [line for line in lines if "┈" in line]
    assert len(ruled) == 3
    assert all(any("\u2800" < sign <= "\u28ff" for sign in line) for line in ruled)


def drawn(width: int, height: int) -> list[Content]:
    return [Content("x" * width)] * (height + 2)  # with a title and an axis


@pytest.mark.parametrize(
    ("width", "room", "rows", "height"),
    [
        (125, 29, 2, 12),  # three beside each other: two would be too low
        (125, 70, 3, 20),
        (125, 10, 2, 7),  # as low as they may be
        (80, 60, 3, 12),
    ],
)
def test_six_charts_share_the_room(width, room, rows, height):
    lines = lines_of(chart_grid([drawn] * 6, width, room, 7))
    gaps = [at for at, line in enumerate(lines) if not line]
    assert len(gaps) + 1 == rows
    assert (gaps[0] if gaps else len(lines)) == height + 2
    assert all(len(line) <= width for line in lines)


def test_features_by_density_are_spread_over_powers_of_ten():
    densities = np.array([0.0] * 7 + [0.001] * 40 + [0.01] * 400 + [0.2] * 3)
    spread = density_spread(densities)
    assert spread is not None
    assert sum(spread.counts) == 443
    assert spread.edges[0] == pytest.approx(0.001)
    assert spread.edges[-1] == pytest.approx(1.0)
    lines = [line.plain for line in spread_chart(spread, 60, 4)]
    assert lines[0] == "Features by density  median 1.0%"
    assert lines[1].startswith("400 ")
    assert lines[-1].split()[0] == "0.10%"
    assert len(lines) == 6


def test_nothing_is_spread_where_nothing_fires():
    assert density_spread(np.zeros(5)) is None
    assert activation_spread(np.zeros(5)) is None


def test_saes_of_a_layer_are_in_the_order_of_their_fvu():
    found = [
        Standing("one", 0.3, 16.0, 0.02, "training"),
        Standing("none"),
        Standing("two", 0.1, 32.0, 0.0, "evaluation", 0.97),
    ]
    lines = lines_of(standings_table(found, "two", 80))
    assert lines[1].split() == ["SAE", "FVU", "L0", "dead", "recovered", "measured"]
    assert lines[2].split() == ["two", "0.100", "32.0", "0.0%", "0.970", "evaluated"]
    assert lines[3].split() == ["one", "0.300", "16.0", "2.0%", "–", "as", "trained"]
    assert standings_table(found[:2], "one", 80) is None


def test_each_layer_of_an_sae_over_several_has_a_line():
    layers = [
        {"layer": "model.layers.1", "fvu": 0.125, "l0": 12.5, "dead_share": 0.25},
        {"layer": "model.layers.2", "fvu": 0.25, "l0": "many"},
    ]
    lines = lines_of(layers_table(layers, 80))
    assert lines[1].split() == ["layer", "FVU", "L0", "dead"]
    assert lines[2].split() == ["model.layers.1", "0.125", "12.5", "25.0%"]
    assert lines[3].split() == ["model.layers.2", "0.250", "–", "–"]
    for nothing in (None, [], "layers", 3, [1, 2]):
        assert layers_table(nothing, 80) is None


def test_tables_of_files_labels_and_topics():
    files = lines_of(files_table({"cfg.json": 700, "weights": 2_400_000}, 40))
    assert [line.split() for line in files] == [
        ["Files"],
        ["weights", "2.4", "MB"],
        ["cfg.json", "700", "B"],
    ]
    bars = lines_of(label_bars({"sea": 300, "law": 150, "art": 1}, 30, 2))
    assert bars[0] == "Documents by label  1 more"
    assert bars[1].count("━") == pytest.approx(2 * bars[2].count("━"), abs=1)
    topics = lines_of(topics_table([{"label": "sea", "feature": 3, "auroc": 0.98}, 7], 40))
    assert topics[1].split() == ["#3", "sea", "0.980"]
    assert topics_table(16, 40) is None


def test_settings_share_two_columns_and_a_long_one_is_above_them():
    path = "/data/models/a/long/way/down/to/one"
    values = {"model": path, "steps": 100, "seed": 0, "k": 16, "precision": "auto"}
    lines = lines_of(settings(values, 72, 68))
    assert len(lines) == 3
    assert lines[0].split() == ["model", path]
    assert lines[1].split() == ["steps", "100", "k", "16"]
    assert lines[2].split() == ["seed", "0", "precision", "auto"]
    assert len(lines_of(settings(values, 60, 68))) == 5


def test_what_is_beside_is_cut_where_the_pane_ends():
    line = beside(Content("left"), Content("x" * 40), 40).plain
    assert line == "left" + " " * 16 + "x" * 19 + "…"
