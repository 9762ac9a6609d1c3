"""The form of an attribution: which number is explained, by which SAEs, and how."""

import json
from typing import Any

import pytest

from mi_crow.errors import UserError
from mi_crow.mechanistic.attribution.question import Question
from tests.tui.driving import press, screen_text
from tests.tui.test_inspect_explaining import attributed
from tests.tui.test_inspect_screen import inspected
from tui.screens.inspect.asking import (
    Asked,
    Before,
    asked_for,
    fields,
    shown_token,
    typed_token,
)
from tui.widgets.forms.fields import WrongValueError, read_values
from tui.widgets.forms.line import FormInput
from tui.widgets.forms.popup import FormPopup

KNOWN = ("early", "late")


def asked(**texts: str) -> Asked:
    form = fields(Before(("late",), token=4, target="quiet"), KNOWN)
    given = {one.name: one.text for one in form} | texts
    return asked_for(read_values(form, given), KNOWN, "late", 12)


def test_the_form_asks_for_every_kind_of_target() -> None:
    assert asked() == Asked(Question(" quiet", position=4), ("late",))
    assert asked(kind="difference", against="loud").question == Question(
        " quiet", " loud", position=4
    )
    assert asked(kind="logit").question == Question(" quiet", raw_logit=True, position=4)
    assert asked(kind="log probability", target="", token="-1").question == Question(
        log_probability=True, position=-1
    )
    feature = asked(kind="feature", feature="7", saes="early", token="", steps="16", top="5")
    assert feature == Asked(Question(feature="late/7", steps=16, top=5), ("early", "late"))
    assert feature.settings() == {"feature": "late/7", "steps": 16, "top": 5}


@pytest.mark.parametrize(
    ("texts", "where", "says"),
    [
        ({"token": "12"}, "token", "the text has no token 12, only 0 to 11"),
        ({"kind": "difference"}, "against", "a difference needs two next tokens"),
        ({"kind": "difference", "against": "quiet"}, "against", "both next tokens are the same"),
        ({"kind": "feature", "saes": "early"}, "feature", "no feature given"),
        ({"kind": "feature", "feature": "none/3"}, "feature", "'none' is not an SAE of this model"),
        ({"kind": "feature", "feature": "7"}, "saes", "needs an SAE of an earlier layer"),
        ({"saes": "early, other"}, "saes", "'other' is not an SAE of this model"),
        ({"target": '"open'}, "target", "is not closed by a quote"),
        ({"kind": "value"}, "kind", "explain must be centred logit, difference, log"),
        ({"steps": "0"}, "steps", "steps must be"),
    ],
)
def test_what_is_wrong_is_told_at_its_field(texts: dict[str, str], where: str, says: str) -> None:
    with pytest.raises(WrongValueError, match=says) as found:
        asked(**texts)
    assert found.value.name == where


def test_a_feature_of_several_layers_may_be_explained_by_its_own_sae() -> None:
    form = fields(Before(("late",), token=4), KNOWN)
    given = {one.name: one.text for one in form} | {"kind": "feature", "feature": "7"}
    values = read_values(form, given)
    question = asked_for(values, KNOWN, "late", 12, ["late"])
    assert question == Asked(Question(feature="late/7", position=4), ("late",))


@pytest.mark.parametrize("token", [" Paris", "ur", "\n", '"', "", ".", "  ", " 12"])
def test_a_next_token_is_typed_as_it_is_shown(token: str) -> None:
    assert typed_token(shown_token(token)) == token
    assert shown_token(" Paris") == "Paris"
    assert shown_token("ur") == json.dumps("ur")


def answered(**target: Any) -> dict[str, Any]:
    found = attributed("demo-topk")
    found["target"] = {**found["target"], **target}
    return found


async def test_the_question_stays_until_it_is_answered_and_is_asked_again(open_inspect):
    async with open_inspect() as (pilot, session):
        await inspected(pilot)
        session.answers["attribute"] = attributed("demo-topk")
        await press(pilot, "a", "e")
        form = pilot.app.screen
        assert isinstance(form, FormPopup)
        texts = {one.field.name: one for one in form.query(FormInput)}
        assert (texts["token"].value, texts["target"].value) == ("4", "quiet")
        texts["kind"].value, texts["against"].value = "difference", "loudd"
        session.error = UserError("' loudd' is 2 tokens for 'sample'", hint="give one token")
        await press(pilot, "ctrl+r")
        assert "' loudd' is 2 tokens" in screen_text(pilot)
        session.error = None
        session.answers["attribute"] = answered(kind="difference", against=" loud")
        texts["against"].value = "loud"
        await press(pilot, "ctrl+r")
        request = session.asked[-1][1]
        assert (request["target"], request["against"], request["position"]) == (
            " quiet",
            " loud",
            4,
        )
        assert "difference of “ quiet” minus “ loud” after “ was”" in screen_text(pilot)
        await press(pilot, "e")
        texts = {one.field.name: one.value for one in pilot.app.screen.query(FormInput)}
        assert (texts["kind"], texts["against"]) == ("difference", "loud")
