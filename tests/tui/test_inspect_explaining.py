"""Why the model said it: causes and what ablating them does, grids of features and of the lens."""

from typing import Any

import pytest

from mi_crow.errors import UserError
from tests.tui.driving import notices, press, screen_text
from tests.tui.test_inspect_screen import inspected
from tui.screens.features.detail import FeatureDetailPane
from tui.screens.inspect.popups import CausesPopup, GridPopup
from tui.widgets.forms.line import FormInput

TOKENS = ["<s>", "The", " harbo", "ur", " was", " quiet"]
SAYS = [{"token": " quiet", "token_id": 7, "probability": 0.81}]


def cause(feature: int, effect: float, **more: Any) -> dict[str, Any]:
    return {
        "feature": feature,
        "concept": {3: "sails and masts"}.get(feature),
        "label": "harbour",
        "auroc": 0.912,
        "effect": effect,
        "measured": effect * 1.1,
        "share": abs(effect) / 4,
        "activation": 3.0,
        "tokens": [[2, effect]],
        **more,
    }


def attributed(*sae_ids: str) -> dict[str, Any]:
    target = {
        "kind": "centred_logit",
        "position": 4,
        "token": " quiet",
        "sae_id": None,
        "feature": None,
    }
    causes = [cause(3, 1.25), cause(120, -0.5)]
    parts = {"features": 0.75, "error": 0.1, "bias": 0.0, "other_tokens": 0.2, "outside": 5.0}
    check = {
        "together": 0.7,
        "predicted_sum": 0.75,
        "rank_correlation": 0.94,
        "faithfulness": 0.9,
        "random_faithfulness": 0.1,
        "completeness": None,
    }
    saes = [{"sae_id": one, "causes": causes, "parts": parts, "check": check} for one in sae_ids]
    below = cause(17, 0.6, sae_id="early", children=[])
    *earlier, last = sae_ids
    tree = [cause(3, 1.25, sae_id=last, children=[below] if earlier else [])]
    return {
        "tokens": TOKENS,
        "target": target,
        "value": 6.05,
        "predictions": SAYS,
        "saes": saes,
        "tree": tree,
    }


def lens() -> dict[str, Any]:
    top = [[[" calm", 0.4], [" loud", 0.1]] for _ in TOKENS]
    layer = {"top": top, "entropy": [1.5] * len(TOKENS), "kl": [0.25] * len(TOKENS)}
    return {"tokens": TOKENS, "layers": [{"point": f"resid_post.{n}", **layer} for n in range(3)]}


async def test_a_says_why_and_space_what_the_model_says_without_it(open_inspect):
    async with open_inspect() as (pilot, session):
        await inspected(pilot)
        session.answers["attribute"] = attributed("demo-topk")
        session.answers["predict"] = {
            "predictions": SAYS,
            "predictions_without": [{"token": " loud", "token_id": 9, "probability": 0.63}],
        }
        await press(pilot, "g", "l", "l", "a")
        assert isinstance(pilot.app.screen, CausesPopup)
        asked = dict(session.asked[-1][1])
        assert (asked["position"], asked["own_token"], asked["saes"]) == (2, True, ["demo-topk"])
        for words in (
            "centred logit of “ quiet” after “ was”  6.05  the likeliest",
            "sails and masts",
            "harbour 0.91",
            "-0.50",
        ):
            assert words in screen_text(pilot)
        await press(pilot, "j", "space")
        assert session.asked[-1][0] == "predict"
        assert session.asked[-1][1]["ablated"] == [["demo-topk", 120]]
        for words in ("✗ #120", "“ loud” 63.0%"):
            assert words in screen_text(pilot)
        await press(pilot, "space")
        assert "✗" not in screen_text(pilot)
        await press(pilot, "k", "enter")
        assert pilot.app.current_mode == "features"
        assert pilot.app.screen.query_one(FeatureDetailPane).feature == 3


async def test_a_token_of_a_later_window_is_explained_in_that_window(open_inspect):
    async with open_inspect() as (pilot, session):
        await inspected(pilot)
        await press(pilot, "W")
        found = attributed("demo-topk") | {"start": 40, "tokens_read": 53}
        session.answers["attribute"] = found
        session.answers["predict"] = {"predictions": SAYS, "predictions_without": SAYS}
        await press(pilot, "a")
        assert session.asked[-1][1]["windows"] is True
        await press(pilot, "space")
        asked = dict(session.asked[-1][1])
        assert (asked["position"], asked["windows"]) == (44, True)
        await press(pilot, "e")
        fields = {one.field.name: one.value for one in pilot.app.screen.query(FormInput)}
        assert fields["token"] == "44"


async def test_the_screen_says_where_the_prediction_fails(open_inspect):
    async with open_inspect((120, 40)) as (pilot, session):
        await inspected(pilot)
        found = attributed("demo-topk")
        session.answers["attribute"] = found
        await press(pilot, "a")
        assert "together +0.70, predicted +0.75  rank correlation 0.94" in screen_text(pilot)
        assert "fails here" not in screen_text(pilot)
        await press(pilot, "escape")
        found["saes"][0]["check"] |= {"together": 9.67, "predicted_sum": 0.356}
        await press(pilot, "a")
        assert "the sum (+0.356; ablated together +9.67) fails here" in screen_text(pilot)


@pytest.mark.slow
async def test_several_saes_are_a_tree_and_s_steers(open_inspect):
    async with open_inspect((120, 40)) as (pilot, session):
        await inspected(pilot)
        session.answers["attribute"] = attributed("early", "demo-topk")
        await press(pilot, "a")
        lines = screen_text(pilot).splitlines()
        root = next(n for n, line in enumerate(lines) if "#3  sails" in line)
        assert "└ #17" in lines[root + 1]
        assert "early" in lines[root + 1]
        await press(pilot, "s")
        assert pilot.app.current_mode == "steer"
        assert "#3" in screen_text(pilot)


def across() -> dict[str, Any]:
    """Of an SAE over three layers: two features, one of which acts through the other."""
    found = attributed("demo-topk")
    own, other = cause(310, 1.25, layer="mlp_in.2"), cause(17, 0.6, layer="mlp_in.1")
    parts = {"features": 0.5, "error": 0.1, "bias": 0.0, "other_tokens": 0.0}
    layers = [{"point": f"mlp_out.{n}", **parts} for n in (1, 2)]
    nothing = dict.fromkeys(parts, 0.0)
    found["saes"][0] |= {
        "causes": [own, other],
        "by_layer": [*layers, {"point": "mlp_out.3", **nothing}],
    }
    below = {**other, "sae_id": "demo-topk", "children": []}
    root = {**own, "sae_id": "demo-topk"}
    found["tree"] = [{**root, "children": [below]}, {**below, "children": [below]}]
    return found


async def test_the_features_of_several_layers_have_their_layer_and_a_tree(open_inspect):
    async with open_inspect() as (pilot, session):
        await inspected(pilot)
        session.answers["attribute"] = across()
        await press(pilot, "a")
        lines = screen_text(pilot).splitlines()
        assert any("#310" in line and "mlp_in.2" in line for line in lines)
        assert not any("└" in line for line in lines)
        assert any(
            "features and SAE error at mlp_out.1 +0.50 +0.10, mlp_out.2 +0.50 +0.10 " in line
            for line in lines
        )
        await press(pilot, "d")
        lines = screen_text(pilot).splitlines()
        assert "what acts through what, demo-topk" in lines[0]
        # One feature acts through two others and is listed under each.
        assert [line.split()[2] for line in lines if "└" in line] == ["#17", "#17"]
        assert all("mlp_in.1" in line for line in lines if "└" in line)


async def test_a_question_that_failed_keeps_its_sentence_until_the_next_answer(open_inspect):
    async with open_inspect() as (pilot, session):
        await inspected(pilot)
        session.error = UserError("SAE 'two' reads two models", hint="inspect its features")
        await press(pilot, "a")
        pilot.app.clear_notifications()
        await press(pilot, "g")
        assert "SAE 'two' reads two models" in screen_text(pilot)
        assert "inspect its features" in screen_text(pilot)
        session.error = None
        session.answers["attribute"] = attributed("demo-topk")
        await press(pilot, "a")
        session.error = UserError("the model ran out of memory")
        await press(pilot, "space")
        pilot.app.clear_notifications()
        await press(pilot, "j")
        assert "the model ran out of memory" in screen_text(pilot)
        await press(pilot, "escape")
        assert "two models" not in screen_text(pilot)


async def test_over_a_grid_the_border_says_why_a_question_failed(open_inspect):
    async with open_inspect() as (pilot, session):
        await inspected(pilot)
        await press(pilot, "m")
        session.error = UserError("SAE 'two' reads two models")
        await press(pilot, "a")
        pilot.app.clear_notifications()
        await press(pilot, "j")
        assert isinstance(pilot.app.screen, GridPopup)
        assert "SAE 'two' reads two models" in screen_text(pilot)


async def test_the_lens_is_a_grid_whose_cells_can_be_explained(open_inspect):
    async with open_inspect() as (pilot, session):
        await inspected(pilot)
        session.answers["lens"] = lens()
        session.answers["attribute"] = attributed("demo-topk")
        await press(pilot, "g", "D")
        assert isinstance(pilot.app.screen, GridPopup)
        assert "resid_post.2 after “<s>”" in screen_text(pilot)
        await press(pilot, "j", "l", "l")
        assert "resid_post.1 after “ harbo”" in screen_text(pilot)
        assert "entropy 1.50" in screen_text(pilot)
        await press(pilot, "a")
        asked = session.asked[-1][1]
        assert (asked["position"], asked["target"]) == (2, " calm")
        assert isinstance(pilot.app.screen, CausesPopup)


@pytest.mark.slow
async def test_the_grid_has_pinned_features_first_and_opens_them(open_inspect):
    async with open_inspect() as (pilot, _):
        await inspected(pilot)
        await press(pilot, "tab", "j", "j", "space")
        pinned = str(pilot.app.screen._pinned[0])
        await press(pilot, "m")
        rows = pilot.app.screen.query_one("#grid")._rows
        assert rows[0].key == pinned
        assert rows[0].mark == "● "
        assert len({row.key for row in rows}) == len(rows)
        await press(pilot, "enter")
        assert pilot.app.current_mode == "features"
        assert pilot.app.screen.query_one(FeatureDetailPane).feature == int(pinned)


@pytest.mark.slow
async def test_order_and_what_is_shown_are_asked_of_the_session_and_come_back(open_inspect):
    async with open_inspect() as (pilot, session):
        await inspected(pilot)
        assert "order" not in session.asked[-1][1]
        await press(pilot, "o")
        assert session.asked[-1][1]["order"] == "share"
        await press(pilot, "f")
        asked = session.asked[-1][1]
        assert (asked["order"], asked["max_density"], asked["named"]) == ("share", 0.1, False)
        assert "by share" in screen_text(pilot)
        saved = pilot.app.screen.state()
        assert (saved["order"], saved["which"]) == ("share", "rare")


@pytest.mark.slow
async def test_what_cannot_be_explained_is_told_and_nothing_opens(open_inspect):
    async with open_inspect() as (pilot, session):
        await press(pilot, "a")
        assert "type a text first" in screen_text(pilot)
        await inspected(pilot)
        session.error = UserError("the device is out of memory", hint="a shorter text would fit")
        for key in ("a", "D", "M"):
            await press(pilot, key)
            assert "out of memory; a shorter text" in notices(pilot)
            assert pilot.app.screen.id != "causes"
        assert "failed" in screen_text(pilot)


@pytest.mark.slow
async def test_layers_say_what_each_sae_explains(open_inspect):
    async with open_inspect((120, 40)) as (pilot, session):
        await inspected(pilot)
        found = session.call("inspect", text="The harbour")
        found |= {"sae_id": "demo-topk", "point": "resid_post.2", "layer": "model.layers.2"}
        found["explained"] = [None, None, *[0.93] * (len(found["tokens"]) - 2)]
        found["features"] = [one | {"concept": None, "label": None} for one in found["features"]]
        session.answers["inspect"] = {**found, "saes": [found]}
        await press(pilot, "G", "M")
        assert "resid_post.2 demo-topk" in screen_text(pilot)
        assert "explains 93%" in screen_text(pilot)
