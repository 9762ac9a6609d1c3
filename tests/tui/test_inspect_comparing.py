"""Two texts on Inspect: aligned, features by difference, sets, patching, layers to drill into."""

from typing import Any

import pytest
from textual.events import Paste

from mi_crow.errors import UserError
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.concepts.annotations_inspections import KINDS
from tests.tui.driving import notices, press, screen_text
from tests.tui.test_inspect_screen import TEXT, inspected
from tui.actions import BY_ID
from tui.screens.inspect.differences import DifferencesPopup
from tui.screens.inspect.keeping import _WAYS
from tui.screens.inspect.popups import GridPopup
from tui.widgets.area import Area
from tui.widgets.forms.drafts import drafts_as_json, take_up_drafts
from tui.widgets.forms.line import FormInput
from tui.widgets.forms.popup import FormPopup
from tui.widgets.token_pane import TokenPane

FIRST = ["<s>", "The", " harbour", " was", " quiet"]
SECOND = ["<s>", "The", " court", " room", " was", " loud"]
OTHER = "The court room was loud"


def side(tokens: list[str], text: str) -> dict[str, Any]:
    flags = [True, *[False] * (len(tokens) - 1)]
    return {"tokens": tokens, "special": flags, "outlier": [False] * len(tokens), "text": text}


def compared() -> dict[str, Any]:
    def row(feature: int, first: list[float], second: list[float]) -> dict[str, Any]:
        return {
            "feature": feature,
            "concept": None,
            "label": "harbour",
            "auroc": 0.9,
            "difference": max(first) - max(second),
            "density": 0.02,
            "first": max(first),
            "second": max(second),
            "first_acts": first,
            "second_acts": second,
        }

    return {
        "sae_id": "demo-topk",
        "model_id": "sample",
        "order": "meaning",
        "first": side(FIRST, TEXT),
        "second": side(SECOND, OTHER),
        "aligned": [[0, 0], [1, 1], [2, 2], [None, 3], [3, 4], [4, 5]],
        "features": [
            row(120, [0.0, 0.0, 4.0, 0.5, 0.0], [0.0] * 6),
            row(17, [0.0] * 5, [0.0, 0.0, 3.0, 1.0, 0.0, 0.0]),
            row(3, [0.0, 0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.5, 0.0, 0.0]),
        ],
    }


def contrasted() -> dict[str, Any]:
    features = [
        {"feature": 120, "name": None, "auroc": 0.97, "effect": 2.1},
        {"feature": 17, "name": None, "auroc": 0.08, "effect": -1.4},
    ]
    means = {"mean_for": 3.0, "mean_against": 0.5, "auroc_chosen": 1.0}
    return {
        "sae_id": "demo-topk",
        "texts_for": 40,
        "texts_against": 38,
        "chance": 0.62,
        "features": [one | means for one in features],
    }


def patched() -> dict[str, Any]:
    effects = [[0.0, 0.02, 0.1, 0.0, 0.0], [0.0, 0.0, 0.75, -0.2, 1.0]]
    return {
        "tokens": FIRST,
        "corrupted_tokens": ["<s>", "The", " court", " was", " quiet"],
        "target": {"token": " sea", "against": " judge", "words": "logit of ' sea'"},
        "clean": 3.5,
        "corrupted": -1.25,
        "what": "resid",
        "points": ["resid_post.0", "resid_post.1"],
        "effects": effects,
    }


async def compare(pilot: Any, session: Any, against: str = OTHER) -> None:
    session.answers["compare"] = compared()
    session.answers["contrast"] = contrasted()
    pilot.app.screen.query_one(Area).text = TEXT
    await press(pilot, "equals_sign", "tab", *against, "ctrl+r")


async def test_two_texts_stand_side_by_side_with_features_by_difference(open_inspect) -> None:
    async with open_inspect() as (pilot, session):
        await compare(pilot, session)
        assert isinstance(pilot.app.screen, DifferencesPopup)
        op, asked = session.asked[-1]
        assert (op, asked["text"], asked["against"]) == ("compare", TEXT, OTHER)
        text = screen_text(pilot)
        for words in ("harbour", "court room", "#120", "+4", "-3"):
            assert words in text
        await press(pilot, "tab")
        first, second = pilot.app.screen.query(TokenPane)
        assert (first.cursor, second.cursor) == (2, 2)
        assert "“harbour” 4.00" in screen_text(pilot)
        assert "differs" in screen_text(pilot)
        await press(pilot, "l")
        assert (first.cursor, second.cursor) == (3, 4)
        assert "the same token" in screen_text(pilot)
        await press(pilot, "tab", "h")
        assert (first.cursor, second.cursor) == (3, 3)


async def test_the_marked_go_to_steer_as_one_group_and_can_be_tagged(open_inspect):
    async with open_inspect() as (pilot, session):
        await compare(pilot, session)
        await press(pilot, "space", "space", "t", *"topic")
        assert "Tag 2 features" in screen_text(pilot)
        left = take_up_drafts(pilot.app, drafts_as_json(pilot.app), print)  # when it ends now
        assert left == ["Tag features: 3 = ctrl+r t opens the form as it was left"]
        await press(pilot, "ctrl+r")
        assert "2 features tagged topic" in notices(pilot)
        annotations = Annotations(pilot.app.context.workspace.annotations_path)
        tags = {one.feature: one.tags for one in annotations.concepts("demo-topk")}
        assert (tags[120], tags[17]) == (("topic",), ("topic",))
        await press(pilot, "s")
        assert pilot.app.current_mode == "steer"
        assert pilot.app.context.steered[0].target == "group:demo-topk/120-17"


def test_the_form_that_saves_any_inspection_can_be_opened_again() -> None:
    assert {*_WAYS} == {*KINDS}
    assert all(name in BY_ID for way in _WAYS.values() for name in way)


async def test_names_of_sets_are_compared_as_sets(open_inspect):
    async with open_inspect() as (pilot, session):
        await compare(pilot, session, "label:law")
        op, asked = session.asked[-1]
        assert (op, asked["against"]) == ("contrast", ["label:law"])
        for words in ("40 texts against 38", "0.97", "Shuffled sets: 0.62"):
            assert words in screen_text(pilot)
        await press(pilot, "enter")
        assert pilot.app.current_mode == "features"


async def test_both_sides_stand_as_they_were_asked_while_the_text_is_the_same(open_inspect):
    async with open_inspect() as (pilot, session):
        session.answers["contrast"] = contrasted()
        await press(pilot, "equals_sign", *"label:sea", "tab", *"label:law", "ctrl+r")
        assert isinstance(pilot.app.screen, DifferencesPopup)

        async def asked_again() -> list[str]:
            await press(pilot, "escape", "equals_sign")
            return [field.value for field in pilot.app.screen.query(FormInput)]

        assert await asked_again() == ["label:sea", "label:law"]
        await press(pilot, "escape", "equals_sign", "tab")
        lines = [f"the court room {place}" for place in range(8)]
        pilot.app.post_message(Paste("\n".join([*lines, ""])))
        await press(pilot, "ctrl+r")
        assert session.asked[-1][1]["against"] == lines
        await press(pilot, "escape", "equals_sign", "tab")
        pilot.app.post_message(Paste("label:law"))
        await press(pilot, "ctrl+r", "escape")
        pilot.app.screen.query_one(Area).text = TEXT
        assert await asked_again() == [TEXT, "label:law"]


@pytest.mark.slow
async def test_the_same_text_twice_is_refused_in_the_form(open_inspect):
    async with open_inspect() as (pilot, session):
        await compare(pilot, session, TEXT)
        assert "both texts are the same" in screen_text(pilot)
        assert session.asked == []


async def test_patching_is_a_grid_with_figures_and_d_restores_something_else(open_inspect) -> None:
    async with open_inspect() as (pilot, session):
        await compare(pilot, session)
        session.answers["patch"] = patched()
        await press(pilot, "p")
        assert isinstance(pilot.app.screen, GridPopup)
        op, asked = session.asked[-1]
        assert (op, asked["clean"], asked["corrupted"]) == ("patch", TEXT, OTHER)
        assert asked["module"] == "resid"
        for words in ("≠har", "75", "-20", "brings back 100.0%", "“ sea” minus “ judge”"):
            assert words in screen_text(pilot)
        await press(pilot, "d")
        assert session.asked[-1][1]["module"] == "attn"
        await press(pilot, "d", "d")
        assert session.asked[-1][1]["features"] is True


async def test_the_map_opens_with_every_layer_that_fits(open_inspect) -> None:
    async with open_inspect() as (pilot, session):
        await compare(pilot, session)
        layers = [f"resid_post.{n}" for n in range(4)]
        effects = [[0.0, 0.0, 0.9, 0.0, 0.0], *([[0.0, 0.0, 0.1, 0.0, 0.0]] * 3)]
        session.answers["patch"] = patched() | {"points": layers, "effects": effects}
        await press(pilot, "p")
        shown = screen_text(pilot)
        assert all(f"{layer} " in shown for layer in layers)  # the strongest is the last row


async def test_p_patches_and_capital_a_asks_why_in_a_form(open_inspect) -> None:
    async with open_inspect() as (pilot, _):
        await inspected(pilot)
        await press(pilot, "p")
        assert "corrupted" in screen_text(pilot)
        await press(pilot, "escape", "A")
        assert "after token" in screen_text(pilot)


async def test_prompts_that_cannot_be_patched_are_mended_in_the_form(open_inspect) -> None:
    async with open_inspect() as (pilot, session):
        await compare(pilot, session)
        session.error = UserError("the prompts have 4 and 5 tokens", hint="change words")
        await press(pilot, "p")
        form = pilot.app.screen
        assert isinstance(form, FormPopup)
        texts = {one.field.name: one for one in form.query(FormInput)}
        assert (texts["text"].value, texts["against"].value) == (TEXT, OTHER)
        await press(pilot, "ctrl+r")
        assert "the prompts have 4 and 5 tokens" in screen_text(pilot)
        session.error, session.answers["patch"] = None, patched()
        texts["target"].value = "sea"
        await press(pilot, "ctrl+r")
        assert session.asked[-1][1]["target"] == " sea"
        assert isinstance(pilot.app.screen, GridPopup)


async def test_enter_on_a_layer_has_its_sae_read_the_text(open_inspect) -> None:
    async with open_inspect() as (pilot, session):
        await inspected(pilot)
        one = session.call("inspect", text=TEXT)
        one["features"] = [row | {"concept": None, "label": "sea"} for row in one["features"]]
        count = len(one["tokens"])
        layers = [
            {**one, "sae_id": name, "point": point, "explained": [None, *[share] * (count - 1)]}
            for name, point, share in (
                ("smol-sae", "resid_post.1", 0.71),
                ("demo-topk", "resid_post.2", 0.93),
            )
        ]
        session.answers["inspect"] = {**one, "saes": layers}
        await press(pilot, "g", "l", "l", "l", "M")
        assert "resid_post.2 demo-topk" in screen_text(pilot)
        assert "explains 93%" in screen_text(pilot)
        await press(pilot, "d")
        assert "the first feature" in screen_text(pilot)
        await press(pilot, "j", "enter")
        assert pilot.app.context.sae_id == "smol-sae"
        assert pilot.app.screen.query_one(TokenPane).cursor == 3
        assert session.asked[-1][1]["sae_id"] == "smol-sae"


def test_a_text_that_was_cut_is_named() -> None:
    one = {"tokens": ["The"], "special": [False], "outlier": [False], "tokens_read": 1}
    found = {
        "sae_id": "tiny",
        "first": {**one, "tokens_total": 1},
        "second": {**one, "tokens_total": 2701},
        "aligned": [[0, 0]],
        "features": [],
    }
    heading = DifferencesPopup(found, {}, None, lambda: None).heading()
    assert heading == "Two texts, read by tiny; of the second only 1 of 2,701 tokens"
