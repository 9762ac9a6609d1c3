"""The arithmetic of the index pass, both ways: segments, sorted codes, chunks, bins, pairs."""

import sys
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from mi_crow.mechanistic.features.index import codes, primitives, segments
from mi_crow.mechanistic.features.index.codes import Chunk, CodedTokens, CodeStore, make_chunk
from mi_crow.mechanistic.features.index.tables.coactivation import TokenSample, coactivations
from mi_crow.mechanistic.features.index.tables.document_features import strongest_features
from mi_crow.mechanistic.features.index.tables.statistics import BinFitter, moments
from tests.helpers.index_paths import arithmetic
from tests.helpers.index_tokens import tokens_of

__all__ = ["arithmetic"]
pytestmark = pytest.mark.usefixtures("arithmetic")

lengths = st.lists(st.integers(0, 6), min_size=1, max_size=20)
filled = st.lists(st.integers(1, 6), min_size=0, max_size=20)
ties = hnp.arrays(np.float32, st.integers(0, 60), elements=st.sampled_from([0.0, 0.5, 1.0, 3.5]))
keys_of = st.integers(0, 2**31 - 1) | st.just(7)


def starts_of(some: Sequence[int]) -> Tensor:
    return segments.starts_of(torch.tensor(some, dtype=torch.int64))


def keys(data: st.DataObject, count: int) -> Tensor:
    return torch.from_numpy(data.draw(hnp.arrays(np.int32, count, elements=keys_of)))


@given(lengths=lengths, data=st.data(), most=st.integers(1, 10))
def test_segments_are_sorted_each_on_its_own(
    lengths: list[int], data: st.DataObject, most: int
) -> None:
    starts = starts_of(lengths)
    some = keys(data, sum(lengths))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "_PIECE", most)
        order = segments.segment_order(starts, some)
    for begin, end in pairwise(starts.tolist()):
        expected = begin + np.argsort(some.numpy()[begin:end], kind="stable")
        assert order[begin:end].tolist() == expected.tolist()


@given(lengths=filled, data=st.data())
def test_the_first_of_the_least_keys_of_a_segment_is_found(
    lengths: list[int], data: st.DataObject
) -> None:
    starts = starts_of(lengths)
    some = keys(data, sum(lengths))
    found = segments.segment_least(starts, some)
    expected = [b + int(some[b:e].numpy().argmin()) for b, e in pairwise(starts.tolist())]
    assert found.tolist() == expected


@given(lengths=filled, data=st.data())
def test_segments_have_their_own_greatest_and_sum(lengths: list[int], data: st.DataObject) -> None:
    starts = starts_of(lengths)
    drawn = data.draw(hnp.arrays(np.float32, sum(lengths), elements=st.floats(-99, 99, width=32)))
    values = torch.from_numpy(drawn)
    cuts = list(pairwise(starts.tolist()))
    greatest = primitives.segment_max(values, starts)
    assert greatest.dtype == torch.float32
    assert greatest.tolist() == [drawn[b:e].max() for b, e in cuts]
    together = primitives.segment_sum(values.double(), starts)
    expected = [drawn[b:e].astype(np.float64).sum() for b, e in cuts]
    np.testing.assert_allclose(together.numpy(), expected, rtol=1e-12, atol=1e-12)


@given(lengths=lengths)
def test_elements_know_their_segment_and_place(lengths: list[int]) -> None:
    starts, total = starts_of(lengths), sum(lengths)
    pairs = [(n, place) for n, length in enumerate(lengths) for place in range(length)]
    assert segments.segment_ids(starts, total).tolist() == [n for n, _ in pairs]
    assert segments.segment_ranks(starts, total).tolist() == [place for _, place in pairs]
    assert segments.group_starts(segments.segment_ids(starts, total)).tolist() == sorted(
        {0, *starts.tolist()}
    )


@given(places=st.lists(st.integers(0, 9), max_size=40), data=st.data())
def test_numbers_are_counted_and_summed_by_place(places: list[int], data: st.DataObject) -> None:
    where = torch.tensor(places, dtype=torch.int64)
    values = data.draw(hnp.arrays(np.float64, len(places), elements=st.floats(-99, 99)))
    seen = Counter(places)
    assert primitives.bincount(where, 10).tolist() == [seen[n] for n in range(10)]
    expected = [values[np.array(places, dtype=int) == n].sum() for n in range(10)]
    found = primitives.weighted_bincount(where, torch.from_numpy(values), 10)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)


@given(ascending=st.lists(st.integers(0, 50)).map(sorted), wanted=st.lists(st.integers(-1, 51)))
def test_wanted_numbers_are_found_among_ascending_ones(
    ascending: list[int], wanted: list[int]
) -> None:
    found = primitives.searchsorted(
        torch.tensor(ascending, dtype=torch.int64), torch.tensor(wanted, dtype=torch.int64)
    )
    assert found.tolist() == [sum(one < some for one in ascending) for some in wanted]


@given(lengths=lengths, most=st.integers(1, 10))
def test_pieces_cover_all_segments_and_stay_small(lengths: list[int], most: int) -> None:
    starts = starts_of(lengths)
    found = list(segments.segment_batches(starts, most))
    assert [n for first, last in found for n in range(first, last)] == list(range(len(lengths)))
    for first, last in found:
        assert last - first == 1 or starts[last] - starts[first] <= most
        assert last - first <= most


@given(values=ties)
def test_keys_of_activations_keep_their_order(values: np.ndarray) -> None:
    given = torch.from_numpy(values)
    assert np.argsort(segments.value_bits(given).numpy(), kind="stable").tolist() == (
        np.argsort(values, kind="stable").tolist()
    )
    assert np.argsort(segments.descending(given).numpy(), kind="stable").tolist() == (
        np.argsort(-values, kind="stable").tolist()
    )


@given(
    codes=st.lists(st.tuples(st.integers(0, 2**32 - 1) | st.just(7), st.integers(0, 9))),
    wide=st.booleans(),
)
def test_codes_are_sorted_by_key_and_value(codes: list[tuple[int, int]], wide: bool) -> None:
    values = torch.tensor([float(value) for _, value in codes])
    # Too wide for one packed integer, or just not.
    bits = segments.CODE_KEY_BITS + wide
    shifted = torch.tensor([key for key, _ in codes], dtype=torch.int64) << wide
    found, carried = segments.sorted_codes(shifted, values, bits)
    pairs = zip((found >> wide).tolist(), carried.tolist(), strict=True)
    assert list(pairs) == sorted(codes)


def test_draws_depend_on_document_position_and_seed_alone() -> None:
    number = torch.arange(1000)
    document, position = number // 10, number % 10
    once = segments.random_keys(document, position, 0)
    assert torch.equal(segments.random_keys(document.flip(0), position.flip(0), 0).flip(0), once)
    assert len(once.unique()) > 990
    assert (segments.random_keys(document, position, 1) != once).double().mean() > 0.99
    assert int(once.min()) >= 0
    assert 0.45 < (once < segments.DRAWS // 2).double().mean() < 0.55


@given(document=st.integers(0, 2**31 - 1), position=st.integers(0, 2**31 - 1), seed=st.integers())
def test_draws_are_those_of_splitmix(document: int, position: int, seed: int) -> None:
    ones = 2**64 - 1
    x = ((document << 32 | position) + (seed * 2 + 1) * 0x9E3779B97F4A7C15) & ones
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & ones
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & ones
    expected = (x ^ (x >> 31)) >> 33
    found = segments.random_keys(torch.tensor([document]), torch.tensor([position]), seed)
    assert found.tolist() == [expected]


def random_tokens(
    rng: np.random.Generator, n: int, n_latents: int, k: int, first_document: int = 0
) -> CodedTokens:
    """n tokens, seven a document, with up to k latents each."""
    latents = np.argsort(rng.random((n, n_latents)), axis=1)[:, :k]
    values = rng.choice([0.0, 0.5, 1.0, 2.0], (n, k)).astype(np.float32)
    number = np.arange(n)
    return tokens_of(first_document + number // 7, number % 7, values, latents)


def fill(store: CodeStore, seed: int = 0, chunks: int = 3) -> list[CodedTokens]:
    rng = np.random.default_rng(seed)
    some = [random_tokens(rng, 21, store.n_latents, 4, 3 * n) for n in range(chunks)]
    for tokens in some:
        store.add(make_chunk(tokens, store.n_latents, 0))
    return some


@pytest.mark.parametrize("budget", [0, 1 << 30])
@pytest.mark.parametrize("most_codes", [1, 17, 1 << 20])
def test_blocks_hold_every_code_once_in_order(tmp_path: Path, budget: int, most_codes: int) -> None:
    store = CodeStore(tmp_path, 12, budget)
    tokens = fill(store)
    assert bool(list(tmp_path.iterdir())) == (budget == 0)
    expected = sorted(
        (int(latent), int(some.document[row]), int(some.position[row]), float(value))
        for some in tokens
        for row, latent, value in zip(some.rows, some.latents, some.values, strict=True)
    )
    found, covered = [], []
    for block in store.feature_blocks(most_codes):
        covered += range(block.first, block.last)
        features = (block.feature + block.first).tolist()
        rest = (block.document.tolist(), block.position.tolist(), block.values.tolist())
        found += zip(features, *rest, strict=True)
    assert covered == list(range(12))
    assert found == expected
    assert store.counts().sum() == len(expected)


@pytest.mark.skipif(sys.platform != "linux", reason="counts what /proc lists")
def test_few_open_files_are_enough_for_many_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))  # four chunks stay mapped
    kept, mapped = CodeStore(tmp_path, 12), CodeStore(tmp_path, 12, budget=0)
    before, at_openings, open_chunk = open_files(), [], codes.open_chunk

    def opened(folder: Path, number: int) -> Chunk:
        chunk = open_chunk(folder, number)
        at_openings.append(open_files() - before)
        return chunk

    monkeypatch.setattr(codes, "open_chunk", opened)
    fill(kept, chunks=30)
    fill(mapped, chunks=30)
    assert open_files() - before == 4 * 8
    for ours, theirs in zip(mapped.feature_blocks(17), kept.feature_blocks(17), strict=True):
        for name, tensor in vars(theirs).items():
            assert np.array_equal(getattr(ours, name), tensor), name
    assert len(at_openings) > 100
    assert max(at_openings) <= (4 + 2) * 8  # and the one that is read, and the one before it
    assert torch.equal(mapped.chunks[-1].values, kept.chunks[-1].values)
    assert len(mapped.chunks[2:9]) == 7


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_corpus_without_a_single_firing_has_blocks_all_the_same(tmp_path: Path) -> None:
    store = CodeStore(tmp_path, 5)
    [block] = list(store.feature_blocks())
    assert (block.first, block.last, len(block.values)) == (0, 5, 0)
    assert moments(block).fires.tolist() == [0] * 5
    nothing = np.zeros((3, 2))
    silent = tokens_of(np.zeros(3), np.arange(3), nothing, nothing)
    store.add(make_chunk(silent, 5, 0))
    assert store.counts().tolist() == [0] * 5
    assert len(strongest_features(silent, 5).feature) == 0


@given(
    values=hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(2**-100, 2**100, width=32))
)
def test_bins_hold_all_activations_between_their_edges(values: np.ndarray) -> None:
    fitter = BinFitter()
    fitter.add(fitter.counted(torch.from_numpy(values)))
    bins = fitter.bins()
    edges = bins.edges
    assert edges[0] == 0.0
    assert edges == sorted(edges)
    assert len(edges) == bins.count + 1 <= 65
    assert edges[-1] > values.max()
    placed = np.searchsorted(np.array(edges, dtype=np.float32), values, side="right") - 1
    assert placed.min() >= 0


def test_bins_are_fine_where_activations_span_an_octave() -> None:
    fitter = BinFitter()
    fitter.add(fitter.counted(torch.linspace(4, 7.9, 1000)))
    assert fitter.bins().count == 32
    empty = BinFitter().bins()
    assert (empty.count, len(empty.edges)) == (1, 2)


@pytest.mark.parametrize("threshold_tokens", [10**9, 30])
def test_pairs_of_many_latents_are_counted_like_those_of_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threshold_tokens: int
) -> None:
    """The path for large dictionaries, on all tokens and on a sample."""
    from mi_crow.mechanistic.features.index.tables import coactivation

    store = CodeStore(tmp_path, 12)
    tokens = fill(store)
    monkeypatch.setattr(coactivation, "EXACT_LATENTS", 4)
    monkeypatch.setattr(coactivation, "SAMPLE_TOKENS", threshold_tokens)
    sample = TokenSample(63, 12)
    active = np.zeros((63, 12), dtype=bool)
    for n, some in enumerate(tokens):
        for row in range(21):
            held = sample.holds(store.chunks[n].draw[row : row + 1])[0]
            active[n * 21 + row, some.latents[some.rows == row]] = held
    assert sample.is_all == (threshold_tokens > 63)
    assert sample.count(store.chunks) == (63 if sample.is_all else pytest.approx(30, abs=12))
    counted = sample.fires(store.chunks, 12)
    fires = active.sum(0)
    assert counted.tolist() == fires.tolist()
    found = coactivations(store.chunks, sample, counted, range(12), 3)
    both = active.T.astype(int) @ active.astype(int)
    for feature in range(12):
        either = fires[feature] + fires - both[feature]
        expected = sorted(
            (-np.float32(both[feature, o] / either[o]), o, int(both[feature, o]))
            for o in range(12)
            if o != feature and both[feature, o]
        )[:3]
        mine = found.feature == feature
        assert found.other[mine].tolist() == [o for _, o, _ in expected]
        assert found.count[mine].tolist() == [c for _, _, c in expected]
        assert found.rank[mine].tolist() == list(range(len(expected)))
