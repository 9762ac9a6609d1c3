"""What the session found in a text, as the Inspect screen keeps it."""

import pytest

from mi_crow.errors import CorruptDataError
from mi_crow.mechanistic.features.records import FeatureRow
from tui.screens.inspect.inspection import Inspection, inspection_from
from tui.screens.inspect.rows import feature_title

RESULT = {
    "tokens": ["<s>", "The", " mast"],
    "special": [True, False, False],
    "outlier": [False, True, False],
    "features": [
        {"feature": 7, "max_act": 3.0, "acts": [0.0, 0.5, 3.0]},
        {"feature": 2, "max_act": 1.0, "acts": [1.0, 0.0, 0.0]},
    ],
    "per_token": [[[2, 1.0]], [[7, 0.5], [9, 0.25]], [[7, 3.0]]],
}


def test_special_and_outlier_tokens_are_passed_over_and_say_why():
    found = inspection_from(RESULT)
    assert found.excluded == {0, 1}
    assert "special" in found.why_excluded(0)
    assert "outlier" in found.why_excluded(1)
    assert found.why_excluded(2) == ""


def test_a_feature_has_one_activation_a_token_wherever_it_was_named():
    found = inspection_from(RESULT)
    assert found.acts_of(7) == (0.0, 0.5, 3.0)
    assert found.acts_of(9) == (0.0, 0.25, 0.0)  # named for one token only
    assert found.acts_of(1000) == (0.0, 0.0, 0.0)


def test_a_long_name_leaves_room_for_the_peak():
    found = inspection_from(RESULT)
    row = FeatureRow(7, 3, 0.1, 3.0, 1.0, "the rigging of ships at anchor", None, None)
    assert feature_title(found, 7, row, 0).plain == (
        "#7  the rigging of ships at anchor   peak “mast” 3.00"
    )
    short = feature_title(found, 7, row, 34).plain
    assert short.endswith("…   peak “mast” 3.00")
    assert len(short) == 34
    assert feature_title(found, 7, None, 34).plain == "#7   peak “mast” 3.00"


def test_every_feature_is_named_once():
    assert inspection_from(RESULT).features() == [7, 2, 9]


@pytest.mark.parametrize(
    "broken",
    [{}, RESULT | {"tokens": 3}, RESULT | {"per_token": [[["x", 1.0]]]}],
)
def test_an_answer_that_is_none_is_refused(broken: dict):
    with pytest.raises(CorruptDataError, match="invalid inspection"):
        inspection_from(broken)


def test_a_cut_text_says_how_much_was_read_and_how_to_read_all() -> None:
    cut = Inspection(tokens=("a",) * 64, tokens_read=64, tokens_total=1200, bos_added=True)
    assert cut.reading() == "64 of 1,200\nW reads all, BOS"
    whole = Inspection(tokens=("a",) * 4, tokens_read=4, tokens_total=4, windows=2)
    assert whole.reading() == "4 tokens\n2 windows"
