"""The Control screen: the tree before and after the model is loaded, hooks, statistics."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from mi_crow.errors import MiCrowError
from mi_crow.hooks.specs import HookSpec
from tests.tui.driving import notices, press, screen_text, settle
from tui.screens.control.hooks import from_form, hook_fields, nudged
from tui.screens.control.profile import profile_charts
from tui.screens.control.tree import Layer, LayerTree
from tui.widgets.field import Field
from tui.widgets.lists.row_list import RowList

LAYERS = [
    {"name": "model", "kind": "LlamaModel", "shape": None, "params": 2_900_000, "point": None},
    {"name": "model.embed_tokens", "kind": "Embedding", "shape": [4096, 128], "params": 524_288},
    *(
        row
        for block in range(4)
        for row in (
            {
                "name": f"model.layers.{block}",
                "kind": "LlamaDecoderLayer",
                "shape": [128],
                "params": 262_400,
                "point": f"resid_post.{block}",
            },
            {"name": f"model.layers.{block}.mlp", "kind": "LlamaMLP", "params": 196_608},
        )
    ),
    {"name": "lm_head", "kind": "Linear", "shape": [4096, 128], "params": 524_288},
]
STATISTICS = {
    "layer": "model.layers.2",
    "shape": [9, 128],
    "mean_norm": 11.25,
    "median_norm": 10.5,
    "max_norm": 42.0,
    "std": 0.98,
}


PROFILE = {
    "tokens": 8,
    "blocks": [
        {
            "block": number,
            "name": f"model.layers.{number}",
            "norm": 5.0 + number,
            "attention": 2.0,
            "mlp": 3.0,
            "attention_cosine": 0.1 * number,
            "mlp_cosine": -0.2,
            "entropy": 6.0 - number,
        }
        for number in range(4)
    ],
    "missing": [],
}
FOUND = {
    "count": 8,
    "mean": 0.1,
    "std": 0.9,
    "histogram": [0, 3, 4, 1],
    "edges": [0, 4, 8, 12, 16],
    "top": [[" ship", 13.5], [" dawn", 9.0]],
    "units": [[7, 3.25]],
    "warnings": 1,
}


def watched(hooks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    detects = [one["kind"] == "statistics" for one in hooks]
    found = [
        FOUND if own and one["enabled"] else None for own, one in zip(detects, hooks, strict=True)
    ]
    lost = any(one["enabled"] and one["value"] > 1e30 for one in hooks)  # not finite any more
    return {"hooks": found, "kl": None if all(detects) or lost else 0.25}


class FakeSession:
    """Answers like the model session, without a process."""

    def __init__(self, fails: str = "") -> None:
        self.alive = False
        self.calls: list[tuple[str, dict]] = []
        self.fails = fails

    def start(self) -> None:
        self.alive = True

    def call(self, op: str, **params):
        self.calls.append((op, params))
        if op == self.fails:
            raise MiCrowError(f"{op} does not work [b]", hint="try later")
        return {
            "load": {"model_id": "sample", "layer": "model.layers.2", "device": "cpu"},
            "layers": {"layers": LAYERS},
            "hooks": {"hooks": [{"id": "1", "layer": "model.layers.2", "hook": "Steering"}]},
            "layer_stats": STATISTICS,
            "profile": PROFILE,
            "watch": watched(params.get("hooks", ())),
        }[op]

    def close(self) -> None:
        self.alive = False


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> FakeSession:
    fake = FakeSession()
    monkeypatch.setattr("tui.context.AppContext.session", fake)
    return fake


def layer_names(pilot) -> list[str]:
    return [row.key for row in pilot.app.screen.query_one("#layers", RowList).rows]


@pytest.mark.slow
async def test_before_loading_the_captured_layers_show_and_l_is_named(
    app_workspace, run_app, session
):
    async with run_app(app_workspace, sae_id="demo-topk") as pilot:
        await press(pilot, "6")
        assert "model.layers.2" in layer_names(pilot)
        assert "l loads sample" in screen_text(pilot)
        assert session.calls == []


@pytest.mark.slow
async def test_without_an_sae_it_says_where_to_open_one(empty_workspace, run_app, session):
    async with run_app(empty_workspace) as pilot:
        await press(pilot, "6")
        assert "No SAE yet: 1 goes to Runs" in screen_text(pilot)
        await press(pilot, "l")
        assert "no SAE is open" in notices(pilot)


async def test_l_loads_the_tree_with_blocks_folded_and_the_cursor_on_the_saes_layer(
    app_workspace, run_app, session
):
    async with run_app(app_workspace, sae_id="demo-topk") as pilot:
        await press(pilot, "6", "l")
        assert "model.layers.3" in layer_names(pilot)
        assert "model.layers.3.mlp" not in layer_names(pilot)
        assert pilot.app.screen.query_one("#layers", RowList).key == "model.layers.2"
        text = screen_text(pilot)
        assert "● hook" in text
        assert "Steering" in text
        await press(pilot, "enter")
        assert "model.layers.2.mlp" in layer_names(pilot)
        await press(pilot, "enter")
        assert "model.layers.2.mlp" not in layer_names(pilot)


async def test_the_statistics_of_a_layer_are_measured_on_the_text(app_workspace, run_app, session):
    async with run_app(app_workspace, sae_id="demo-topk") as pilot:
        await press(pilot, "6", "l", "e", *"Now ", "ctrl+r")
        params = next(params for op, params in session.calls if op == "layer_stats")
        assert params["layer"] == "model.layers.2"
        assert params["text"].startswith("Now ")
        text = screen_text(pilot)
        assert "median norm  10.50" in text
        assert "9 × 128" in text


@pytest.mark.slow
async def test_an_empty_text_is_not_sent(app_workspace, run_app, session):
    async with run_app(app_workspace, sae_id="demo-topk") as pilot:
        await press(pilot, "6", "l")
        pilot.app.screen.query_one("#probe-text").text = "  "
        await press(pilot, "ctrl+r")
        assert "The text is empty" in notices(pilot)
        assert session.calls[-1][0] == "hooks"


@pytest.mark.slow
@pytest.mark.parametrize("op", ["load", "layers", "layer_stats"])
async def test_a_failure_is_told_and_the_next_try_works(app_workspace, run_app, session, op):
    session.fails = op
    async with run_app(app_workspace, sae_id="demo-topk") as pilot:
        await press(pilot, "6", "l", "ctrl+r")
        assert f"{op} does not work [b]; try later" in notices(pilot)
        session.fails = ""
        await press(pilot, "l", "ctrl+r")
        asked = [op for op, *_ in session.calls]
        assert asked[asked.index(op) + 1 :][-3:] == ["layer_stats", "profile", "watch"]
        pilot.app.clear_notifications()  # they lie over the pane
        await settle(pilot)
        assert "median norm  10.50" in screen_text(pilot)


@pytest.mark.slow
async def test_a_session_that_died_is_noticed_and_loads_again(app_workspace, run_app, session):
    async with run_app(app_workspace, sae_id="demo-topk") as pilot:
        await press(pilot, "6", "l")
        session.alive = False
        pilot.app.look_now()
        await settle(pilot)
        assert "session ended" in screen_text(pilot).splitlines()[0]
        assert "l loads it again" in " ".join(screen_text(pilot).split())
        await press(pilot, "l")
        assert session.alive
        assert "session ended" not in screen_text(pilot)


@pytest.mark.slow
async def test_layers_that_cannot_be_read_are_asked_for_once(app_workspace, run_app):
    """However the answer and the news that the model is loaded follow each other."""
    session = FakeSession(fails="layers")
    async with run_app(app_workspace, sae_id="demo-topk") as pilot:
        pilot.app.context._session = session
        for time in (1, 2):
            await press(pilot, "6", "l", "1")
            assert [op for op, _ in session.calls].count("layers") == time
            assert pilot.app.message_log.unread_errors == time
        session.fails = ""
        await press(pilot, "6", "l")
        assert "model.layers.2" in layer_names(pilot)
        assert session.calls[-1][0] == "hooks"


@pytest.mark.slow
async def test_leaving_does_not_wait_for_a_model_that_loads(app_workspace, run_app):
    class Slow(FakeSession):
        """Loads until it is closed."""

        def __init__(self) -> None:
            super().__init__()
            self.asked, self.closed = threading.Event(), threading.Event()

        def call(self, op: str, **params):
            self.asked.set()
            self.closed.wait()
            raise MiCrowError("the session was closed")

        def close(self) -> None:
            self.closed.set()

    slow = Slow()
    async with run_app(app_workspace, sae_id="demo-topk") as pilot:
        pilot.app.context._session = slow
        await pilot.press("6", "l")
        while not slow.asked.is_set():
            await pilot.pause()
        await pilot.pause()
        assert "loading model" in screen_text(pilot).splitlines()[0]
        await pilot.press("q")
    assert slow.closed.is_set()


def test_the_tree_knows_parents_that_are_missing_names():
    tree = LayerTree([Layer("h.0"), Layer("h.0.mlp"), Layer("h.0.mlp.fc"), Layer("ln")])
    assert tree.ancestors("h.0.mlp.fc") == ["h.0.mlp", "h.0"]
    assert [row.key for row in tree.rows({"h.0.mlp"}, ())] == ["h.0", "h.0.mlp", "ln"]
    assert [row.key for row in tree.rows({"h.0"}, ())] == ["h.0", "ln"]
    assert tree.blocks() == {"h.0"}


async def test_what_was_measured_of_a_layer_fits_the_usual_terminal(
    app_workspace, run_app, session
):
    async with run_app(app_workspace, sae_id="demo-topk", size=(80, 24)) as pilot:
        await press(pilot, "6", "l", "ctrl+r")
        detail, heading = (
            pilot.app.screen.query_one(name).region for name in ("#layer-detail", "#own-hooks")
        )
        found = {"kind", "point", "shape", "mean norm", "median norm", "largest norm", "std"}
        shown = screen_text(pilot).splitlines()[detail.y : detail.bottom]
        assert not {name for name in found if not any(f"{name} " in line for line in shown)}
        assert heading.y >= detail.bottom


@pytest.mark.slow
async def test_the_profile_over_depth_stands_beside_the_layer(app_workspace, run_app, session):
    async with run_app(app_workspace, sae_id="demo-topk", size=(120, 40)) as pilot:
        await press(pilot, "6", "l", "ctrl+r")
        text = screen_text(pilot)
        assert "● stream 7.00" in text
        assert "▲ attention 2.00" in text
    charts = profile_charts(PROFILE, "model.layers.2", 100, 5)
    assert charts is not None
    assert "Entropy of the logit lens, nats ● 4.00" in charts.plain
    assert profile_charts({}, "", 100, 5) is None


def cell(pilot, place: int) -> str:
    """What was found with an added hook."""
    return pilot.app.screen.query_one("#own-hooks", RowList).rows[place].cells[2].text


async def test_hooks_are_added_switched_and_removed(app_workspace, run_app, session):
    async with run_app(app_workspace, sae_id="demo-topk", size=(120, 40)) as pilot:
        await press(pilot, "6", "l", "n")
        pilot.app.screen.query_one("#field-warn_above", Field).value = "12"
        await press(pilot, "ctrl+r", "ctrl+r")
        text = screen_text(pilot)
        assert "statistics, warning above 12" in text
        assert "1 warning" in text
        assert "“ship” 13.5" in text
        await press(pilot, "n")
        pilot.app.screen.query_one("#field-kind", Field).value = "scale"
        assert "scale: 0.5, neurons: 0" in screen_text(pilot)
        await press(pilot, "ctrl+r")
        assert "× 0.5" in screen_text(pilot)
        assert "KL 0.250 nats a token" in screen_text(pilot)  # measured again at once
        assert "KL 0.25" in cell(pilot, 1)
        await press(pilot, "n")
        pilot.app.screen.query_one("#field-kind", Field).value = "scale"
        pilot.app.screen.query_one("#field-value", Field).value = "1e38"
        await press(pilot, "ctrl+r")
        assert "predictions are not finite" in screen_text(pilot)
        await press(pilot, "x")
        assert "KL 0.250 nats a token" in screen_text(pilot)
        await press(pilot, "space")
        hooks = session.calls[-1][1]["hooks"]
        assert [(one["kind"], one["enabled"]) for one in hooks] == [
            ("statistics", True),
            ("scale", False),
        ]
        await press(pilot, "x", "x")
        assert session.calls[-1][1]["hooks"] == []


async def test_a_hook_is_edited_and_stays_off(app_workspace, run_app, session):
    async with run_app(app_workspace, sae_id="demo-topk", size=(120, 40)) as pilot:
        await press(pilot, "6", "l", "n")
        pilot.app.screen.query_one("#field-kind", Field).value = "scale"
        await press(pilot, "ctrl+r", "space")
        pilot.app.screen.query_one("#own-hooks", RowList).focus()
        await press(pilot, "enter")
        value = pilot.app.screen.query_one("#field-value", Field)
        assert value.value == "0.5"
        value.value = "0.25"
        await press(pilot, "ctrl+r", "ctrl+r")
        (hook,) = session.calls[-1][1]["hooks"]
        assert (hook["kind"], hook["value"], hook["enabled"]) == ("scale", 0.25, False)


async def test_a_value_is_changed_by_a_key_and_measured_again(app_workspace, run_app, session):
    async with run_app(app_workspace, sae_id="demo-topk", size=(200, 60)) as pilot:
        await press(pilot, "6")
        footer = screen_text(pilot).splitlines()[-1]
        assert "l load model" in footer
        assert "less" not in footer
        await press(pilot, "l")
        assert "l load model" not in screen_text(pilot).splitlines()[-1]
        await press(pilot, "ctrl+r", "n")
        pilot.app.screen.query_one("#field-kind", Field).value = "scale"
        await press(pilot, "ctrl+r")
        assert "> more" in screen_text(pilot).splitlines()[-1]
        await press(pilot, "greater_than_sign", "greater_than_sign", "less_than_sign")
        assert "× 0.6" in screen_text(pilot)
        assert session.calls[-1][1]["hooks"][0]["value"] == 0.6
        await press(pilot, "x", "n", "ctrl+r", "greater_than_sign")
        assert session.calls[-1][1]["hooks"][0]["value"] == 0.0  # statistics have no value


async def test_the_footer_has_the_keys_of_the_hook_under_the_cursor_and_of_the_model(
    app_workspace, run_app, session
):
    async with run_app(app_workspace, sae_id="demo-topk", size=(200, 60)) as pilot:
        await press(pilot, "6", "l", "n", "ctrl+r", "n")
        pilot.app.screen.query_one("#field-kind", Field).value = "scale"
        await press(pilot, "ctrl+r")
        pilot.app.screen.query_one("#own-hooks", RowList).focus()
        for key, has in (("k", False), ("j", True), ("k", False)):
            await press(pilot, key)
            assert ("> more" in screen_text(pilot).splitlines()[-1]) is has
        assert "l load model" not in screen_text(pilot).splitlines()[-1]
        pilot.app.open_sae("smol-sae")
        await settle(pilot)
        assert "l loads that of smol-sae" in screen_text(pilot)
        assert "l load model" in screen_text(pilot).splitlines()[-1]


@pytest.mark.parametrize(
    "spec",
    [
        HookSpec("resid_post.1", "neurons", -1234.56789, (3, 17), only_above=1234567.5),
        HookSpec("resid_post.1", "scale", 0.1),
        HookSpec("resid_post.1", "statistics", warn_above=1234567.5),
    ],
)
def test_a_hook_that_is_looked_at_in_the_form_stays_as_it_is(spec):
    assert from_form({field.name: field.text for field in hook_fields("", spec)}) == spec


def test_what_neurons_are_set_to_changes_by_a_tenth_of_it():
    spec = HookSpec("resid_post.1", "neurons", 40.0, (3,))
    assert [nudged(spec, steps).value for steps in (1, -1)] == [44.0, 36.0]
    assert nudged(replace(spec, value=0.0), -1).value == -0.1


async def test_a_neuron_that_the_layer_does_not_have_is_refused_in_the_form(
    app_workspace, run_app, session
):
    async with run_app(app_workspace, sae_id="demo-topk", size=(120, 40)) as pilot:
        await press(pilot, "6", "l", "n")
        screen = pilot.app.screen
        screen.query_one("#field-kind", Field).value = "neurons"
        screen.query_one("#field-layer", Field).value = "resid_post.2"
        screen.query_one("#field-neurons", Field).value = "17, 9999"
        await press(pilot, "ctrl+r")
        assert pilot.app.screen is screen
        assert "has no neuron 9999" in screen_text(pilot)
        screen.query_one("#field-neurons", Field).value = "17"
        await press(pilot, "ctrl+r")
        assert "neurons 17 = 0" in screen_text(pilot)


@pytest.mark.slow
async def test_layers_are_filtered_and_sent_to_steer(app_workspace, run_app, session):
    async with run_app(app_workspace, sae_id="demo-topk") as pilot:
        await press(pilot, "6", "l", "slash", *"3 mlp", "enter")
        assert layer_names(pilot) == ["model", "model.layers.3", "model.layers.3.mlp"]
        await press(pilot, "G", "enter")
        assert "model.layers.0" in layer_names(pilot)
        assert pilot.app.screen.query_one("#layers", RowList).key == "model.layers.3.mlp"
        await press(pilot, "s")
        assert "model.layers.3.mlp" in screen_text(pilot)
        await press(pilot, "6")
        assert "◆ steered" in screen_text(pilot)
