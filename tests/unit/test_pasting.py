"""Escape characters within a paste are text, however the terminal cuts what it sends."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.terminal.pasting import PasteReader

SENT = "k\x1b[Aj\x1b[200~one \x1b[31mred\x1b[0m q\x1b\x1b[201~\x1b\x1b[200~\x1b[20\x1b[201~x"
READ = "k\x1b[Aj\x1b[200~one ␛[31mred␛[0m q␛\x1b[201~\x1b\x1b[200~␛[20\x1b[201~x"


@given(st.lists(st.integers(0, len(SENT)), max_size=12))
def test_escapes_in_a_paste_are_symbols_and_all_else_is_as_it_was(cuts):
    reader, at = PasteReader(), [0, *sorted(cuts), len(SENT)]
    pieces = [SENT[start:end] for start, end in pairwise(at)]
    assert "".join(map(reader.feed, pieces)) == READ


@pytest.mark.parametrize("keys", ["\x1b", "\x1b[", "\x1b[20", "\x1bOP", "q"])
def test_keys_are_not_held_back(keys):
    assert PasteReader().feed(keys) == keys
