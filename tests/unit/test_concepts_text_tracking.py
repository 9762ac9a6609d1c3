"""Top texts: the vectorised merge against a plain sort, however the texts are batched."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mi_crow.mechanistic.concepts.text_tracking import TextTracker

LATENTS, TOP = 6, 3
CPU = torch.device("cpu")

# A text is a few tokens, each with one active latent; the name decides which text it is.
tokens = st.lists(
    st.tuples(st.integers(0, LATENTS - 1), st.integers(0, 40).map(lambda n: n / 8)),
    min_size=1,
    max_size=4,
)
batches = st.lists(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), tokens), min_size=1, max_size=4), max_size=5
)


def add(tracker: TextTracker, batch: list) -> None:
    length = max(len(row) for _, row in batch)
    values = torch.zeros(len(batch), length, 1)
    indices = torch.zeros(len(batch), length, 1, dtype=torch.int64)
    for number, (_, row) in enumerate(batch):
        for place, (latent, value) in enumerate(row):
            values[number, place, 0], indices[number, place, 0] = value, latent
    tracker.add([name for name, _ in batch], values, indices)


@pytest.mark.slow
@settings(deadline=None)
@given(batches)
def test_each_latent_keeps_its_strongest_texts_once(batches):
    tracker = TextTracker(LATENTS, TOP, CPU)
    best: dict[int, dict[str, float]] = {}
    for batch in batches:
        add(tracker, batch)
        for name, row in batch:
            for latent, value in row:
                texts = best.setdefault(latent, {})
                texts[name] = max(texts.get(name, 0.0), value)
    found = tracker.top_texts()
    assert set(found) == {latent for latent, texts in best.items() if max(texts.values()) > 0}
    for latent, pairs in found.items():
        expected = sorted((value for value in best[latent].values() if value > 0), reverse=True)
        assert [value for _, value in pairs] == expected[:TOP]
        assert len({name for name, _ in pairs}) == len(pairs)
        # A text that was pushed out and came back weaker may not be the strongest any more.
        assert all(value <= best[latent][name] for name, value in pairs)


def test_a_text_counts_by_its_strongest_token_and_once_however_often_it_comes():
    tracker = TextTracker(LATENTS, TOP, CPU)
    add(tracker, [("a", [(0, 1.0), (0, 3.0), (0, 2.0)]), ("b", [(0, 2.5)]), ("a", [(0, 2.0)])])
    add(tracker, [("b", [(0, 1.0)])])
    assert tracker.top_texts() == {0: [("a", 3.0), ("b", 2.5)]}


@pytest.mark.slow
def test_texts_in_nobodys_table_are_forgotten():
    tracker = TextTracker(LATENTS, TOP, CPU)
    add(tracker, [("loudest", [(0, 5.0)])])
    for number in range(1500):
        add(tracker, [(f"quiet {number}", [(1, number / 1000)])])
    assert len(tracker._texts) < 1200
    found = tracker.top_texts()
    assert found[0] == [("loudest", 5.0)]
    assert [text for text, _ in found[1]] == ["quiet 1499", "quiet 1498", "quiet 1497"]


def test_of_texts_that_tie_as_many_stand_as_there_is_room_for_and_they_stay_one_each():
    tracker = TextTracker(LATENTS, TOP, CPU)
    for batch in ("ab", "cd", "ea"):
        add(tracker, [(name, [(0, 2.0)]) for name in batch])
    [pairs] = tracker.top_texts().values()
    assert [value for _, value in pairs] == [2.0] * TOP
    assert len({name for name, _ in pairs}) == TOP
    add(tracker, [("louder", [(0, 2.125)])])
    assert tracker.top_texts()[0][0] == ("louder", 2.125)


def test_silent_positions_and_latents_that_never_fired_are_left_out():
    tracker = TextTracker(LATENTS, TOP, CPU)
    add(tracker, [("a", [(0, 0.0), (2, 1.0)]), ("b", [(3, 0.0)])])
    assert tracker.top_texts() == {2: [("a", 1.0)]}


@pytest.mark.slow
@settings(deadline=None)
@given(st.permutations("abcdefgh"), st.lists(st.integers(0, 40), min_size=8, max_size=8))
def test_how_texts_are_batched_does_not_matter(order, levels):
    """Each text once: the values kept are those of one sort, whatever came when."""
    level = dict(zip("abcdefgh", levels, strict=True))
    kept = []
    for size in (1, 3, 8):
        tracker = TextTracker(LATENTS, TOP, CPU)
        for start in range(0, 8, size):
            add(tracker, [(name, [(1, level[name] / 8)]) for name in order[start : start + size]])
        pairs = tracker.top_texts().get(1, [])
        assert all(value == level[name] / 8 for name, value in pairs)
        kept.append([value for _, value in pairs])
    expected = [value / 8 for value in sorted(levels, reverse=True)[:TOP] if value]
    assert kept == [expected] * 3
