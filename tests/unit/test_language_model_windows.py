"""Documents to rows: what the tokenizer would make of them, cut, split or packed, nothing lost."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mi_crow.datasets import split_of
from mi_crow.errors import MiCrowError, UserError
from mi_crow.language_model.capture import token_stream
from mi_crow.language_model.capture.token_stream import tokenized
from mi_crow.language_model.capture.windows import (
    Row,
    SourceText,
    Windowing,
    added_ids,
    cut_by_tokens,
)
from tests.helpers.tiny_models import TEXTS, build_tokenizer

TOKENIZER = build_tokenizer()
WITHOUT_BOS = build_tokenizer(bos=False, pad=False)
STRANGE = [*TEXTS, "", " \n\t", "x" * 5000, "</s> inside <s>", "é🙂" * 40, "a\x00b\ud7ff"]


def rows_of(texts: list[str], context: int, tokenizer: Any = TOKENIZER, **settings: Any):
    windowing = Windowing(tokenizer, context, **settings)
    sources = [SourceText(n, text, f"label {n % 2}") for n, text in enumerate(texts)]
    ((_, tokens),) = tokenized(tokenizer, [(0, texts)], windowing.offsets_above, own_process=False)
    return windowing, list(windowing.rows(sources, tokens))


def inside(row: Row, tokenizer: Any = TOKENIZER) -> list[int]:
    """The ids of a row without what every row has before and after."""
    before, after = added_ids(tokenizer)
    return row.token_ids[len(before) : len(row.token_ids) - len(after)].tolist()


@pytest.mark.parametrize("tokenizer", [TOKENIZER, WITHOUT_BOS], ids=["bos", "no bos"])
def test_a_truncated_row_is_what_the_tokenizer_makes_of_the_text(tokenizer: Any) -> None:
    windowing, rows = rows_of(STRANGE, 12, tokenizer)
    expected = tokenizer(STRANGE, truncation=True, max_length=12)["input_ids"]
    assert [row.token_ids.tolist() for row in rows] == expected
    assert [row.text for row in rows] == STRANGE
    assert [row.split for row in rows] == [split_of(text) for text in STRANGE]
    whole = [len(ids) for ids in tokenizer(STRANGE)["input_ids"]]
    assert windowing.truncated == sum(length > 12 for length in whole)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [None, 0, 10])
def test_a_process_beside_gives_what_this_one_gives(limit: int | None) -> None:
    batches = [(number, STRANGE[number::3]) for number in range(3)]
    here = list(tokenized(TOKENIZER, batches, limit, own_process=False))
    beside = list(tokenized(TOKENIZER, batches, limit, own_process=True))
    assert [key for key, _ in here] == [key for key, _ in beside] == [0, 1, 2]
    for (_, left), (_, right) in zip(here, beside, strict=True):
        for one, other in zip(left, right, strict=True):
            for mine, yours in zip(one, other, strict=True):
                np.testing.assert_equal(mine, yours)


def test_a_tokenizing_process_that_dies_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_stream, "_COMMAND", ("false",))
    with pytest.raises(MiCrowError, match="tokenizing process ended"):
        list(tokenized(TOKENIZER, [(0, TEXTS)], None, own_process=True))


def test_leaving_the_tokenizing_process_early_ends_it() -> None:
    endless = ((number, TEXTS * 200) for number in iter(int, 1))
    found = tokenized(TOKENIZER, endless, None, own_process=True)
    assert len(next(found)[1]) == len(TEXTS) * 200
    found.close()  # type: ignore[attr-defined]  # returns: no thread or process is waited for


def test_windows_hold_every_token_once_and_say_their_text() -> None:
    text = TEXTS[0] + " " + TEXTS[1] + " naïve 🙂 " * 5
    _, rows = rows_of([text, "short"], 10, split_long=True)
    windows = [row for row in rows if row.document == 0]
    assert [row.window for row in windows] == list(range(len(windows)))
    ids = [token for row in windows for token in inside(row)]
    assert ids == TOKENIZER(text, add_special_tokens=False)["input_ids"]
    assert all(len(row.token_ids) <= 10 for row in windows)
    assert [row.documents_started for row in windows] == [1] + [0] * (len(windows) - 1)
    assert {row.split for row in windows} == {split_of(text)}
    assert {row.label for row in windows} == {"label 0"}
    for row in windows:
        if "🙂" not in row.text and "ï" not in row.text:
            assert TOKENIZER.decode(inside(row)) == row.text
    assert rows[-1].text == "short"


def test_a_document_of_one_long_word_is_split_too() -> None:
    _, rows = rows_of(["ab" * 3000], 64, split_long=True)
    assert len(rows) > 10
    assert "".join(row.text for row in rows) == "ab" * 3000


@given(st.lists(st.text(max_size=60), min_size=1, max_size=12), st.integers(10, 40), st.booleans())
def test_packing_loses_nothing_and_keeps_held_out_text_apart(
    texts: list[str], context: int, split_long: bool
) -> None:
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    _, rows = rows_of(texts, context, pack=True, split_long=split_long)
    end = TOKENIZER.eos_token_id
    room = context - 1
    found: dict[str, list[int]] = {"train": [], "heldout": []}
    for row in rows:
        assert len(row.token_ids) <= context
        found[row.split] += [token for token in inside(row) if token != end]
    for split, ids in found.items():
        expected = []
        for text in texts:
            if split_of(text) == split:
                whole = TOKENIZER(text, add_special_tokens=False)["input_ids"]
                whole = whole if split_long else whole[:room]
                expected += [token for token in whole if token != end]
        assert ids == expected
    assert sum(row.documents_started for row in rows) == len(texts)
    keys = [(row.document, row.window) for row in rows]
    assert len(set(keys)) == len(keys)


def test_packing_fills_rows_and_parts_documents_with_the_end_token() -> None:
    texts = [text for text in TEXTS if split_of(text) == "train"]
    _, alone = rows_of(texts, 64)
    _, packed = rows_of(texts, 64, pack=True)
    assert len(packed) < len(alone)
    two = next(row for row in packed if row.documents_started > 1)
    ends = np.flatnonzero(two.token_ids == TOKENIZER.eos_token_id)
    assert len(ends) == two.documents_started - 1
    assert not set(ends) & set(two.kept.tolist())
    assert two.label is None
    first = two.document
    assert two.text.startswith(texts[first] + "</s>" + texts[first + 1])


def test_special_tokens_are_dropped_by_id_unless_kept() -> None:
    _, (row,) = rows_of(["</s> word <s>"], 32)
    special = {TOKENIZER.bos_token_id, TOKENIZER.eos_token_id}
    assert special <= set(row.token_ids.tolist())
    assert not special & set(row.token_ids[row.kept].tolist())
    _, (kept,) = rows_of(["</s> word <s>"], 32, keep_special=True)
    assert kept.kept.tolist() == list(range(len(kept.token_ids)))


@pytest.mark.parametrize("settings", [{}, {"split_long": True}, {"keep_special": True}])
def test_kept_tokens_are_counted_before_rows_are_made(settings: dict[str, Any]) -> None:
    windowing = Windowing(TOKENIZER, 12, **settings)
    ((_, tokens),) = tokenized(
        TOKENIZER, [(0, STRANGE)], windowing.offsets_above, own_process=False
    )
    for number, (text, one) in enumerate(zip(STRANGE, tokens, strict=True)):
        rows = windowing.rows([SourceText(number, text, None)], [one])
        assert windowing.kept_tokens(one) == sum(len(row.kept) for row in rows)


def test_texts_of_a_chat_template_get_no_special_tokens_added() -> None:
    _, (row,) = rows_of(["<s>hello</s>"], 32, chat=True)
    assert row.token_ids.tolist() == TOKENIZER("<s>hello</s>", add_special_tokens=False).input_ids


def test_a_context_without_room_is_refused() -> None:
    with pytest.raises(UserError, match="room only for the special ones") as caught:
        Windowing(TOKENIZER, 1)
    assert "--context-length 2" in caught.value.sentence


def test_rows_are_cut_into_stretches_by_tokens() -> None:
    _, rows = rows_of(TEXTS, 64)
    stretches = list(cut_by_tokens(rows, 60))
    assert [row for stretch in stretches for row in stretch] == rows
    assert all(sum(len(row.kept) for row in s) <= 60 or len(s) == 1 for s in stretches)
    assert [len(one) for one in cut_by_tokens([], 60)] == [0]
