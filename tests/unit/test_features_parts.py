"""The pieces of the index pass: segments, sorted codes, chunks on disk, bins, pairs, directions."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mi_crow.mechanistic.features import segments
from mi_crow.mechanistic.features.coactivation import TokenSample, coactivations
from mi_crow.mechanistic.features.codes import CodeStore, Tokens, make_chunk
from mi_crow.mechanistic.features.directions import directions, neighbours, plane
from mi_crow.mechanistic.features.document_features import strongest_features
from mi_crow.mechanistic.features.labels import labelled_documents
from mi_crow.mechanistic.features.logits import LogitLens
from mi_crow.mechanistic.features.statistics import BinFitter, moments
from mi_crow.mechanistic.features.token_texts import document_token_texts, vocabulary_texts
from tests.tiny_models import TEXTS, build_tokenizer

lengths = st.lists(st.integers(0, 6), min_size=1, max_size=20)
ties = hnp.arrays(np.float32, st.integers(0, 60), elements=st.sampled_from([0.0, 0.5, 1.0, 3.5]))


@given(lengths=lengths, data=st.data(), most=st.integers(1, 10))
def test_segments_are_sorted_each_on_its_own(
    lengths: list[int], data: st.DataObject, most: int
) -> None:
    starts = segments.starts_of(np.array(lengths))
    keys = data.draw(
        hnp.arrays(np.uint32, int(starts[-1]), elements=st.integers(0, 2**32 - 1) | st.just(7))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "_PIECE", most)
        order = segments.segment_order(starts, keys)
    for begin, end in pairwise(starts.tolist()):
        expected = begin + np.argsort(keys[begin:end], kind="stable")
        assert order[begin:end].tolist() == expected.tolist()


@given(lengths=lengths, most=st.integers(1, 10))
def test_pieces_cover_all_segments_and_stay_small(lengths: list[int], most: int) -> None:
    starts = segments.starts_of(np.array(lengths))
    found = list(segments.pieces(starts, most))
    assert [n for first, last in found for n in range(first, last)] == list(range(len(lengths)))
    for first, last in found:
        assert last - first == 1 or starts[last] - starts[first] <= most
        assert last - first <= most


@given(values=ties)
def test_keys_of_activations_keep_their_order(values: np.ndarray) -> None:
    assert np.argsort(segments.value_bits(values), kind="stable").tolist() == (
        np.argsort(values, kind="stable").tolist()
    )
    assert np.argsort(segments.descending(values), kind="stable").tolist() == (
        np.argsort(-values, kind="stable").tolist()
    )


@given(
    pairs=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 999)), unique=True, max_size=50),
    wide=st.booleans(),
)
def test_codes_are_sorted_by_both_columns(pairs: list[tuple[int, int]], wide: bool) -> None:
    major = np.array([a for a, _ in pairs], dtype=np.int32)
    minor = np.array([b for _, b in pairs], dtype=np.int32)
    values = (major * 1000 + minor).astype(np.float32)
    limits = (2**30, 2**30) if wide else (100, 1000)  # too wide for one packed integer, or not
    found = segments.sorted_codes(major, minor, values, *limits)
    expected = sorted(pairs)
    assert list(zip(found[0].tolist(), found[1].tolist(), strict=True)) == expected
    assert found[2].tolist() == [float(a * 1000 + b) for a, b in expected]


def test_draws_depend_on_document_position_and_seed_alone() -> None:
    document, position = np.arange(1000) // 10, np.arange(1000) % 10
    once = segments.draws(document, position, 0)
    assert (segments.draws(document[::-1], position[::-1], 0)[::-1] == once).all()
    assert len(np.unique(once)) > 990
    assert (segments.draws(document, position, 1) != once).mean() > 0.99
    assert 0.45 < (once < 2**31).mean() < 0.55


def random_tokens(
    rng: np.random.Generator, n: int, n_latents: int, k: int, first_document: int = 0
) -> Tokens:
    """n tokens, seven a document, with up to k latents each."""
    latents = np.argsort(rng.random((n, n_latents)), axis=1)[:, :k]
    values = rng.choice([0.0, 0.5, 1.0, 2.0], (n, k)).astype(np.float32)
    number = np.arange(n)
    return Tokens(
        (first_document + number // 7).astype(np.int32),
        (number % 7).astype(np.int32),
        values,
        latents.astype(np.uint16),
    )


def fill(store: CodeStore, seed: int = 0, chunks: int = 3) -> list[Tokens]:
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
        (int(latent), int(document), int(position), float(value))
        for some in tokens
        for document, position, row, latents in zip(
            some.document, some.position, some.values, some.latents, strict=True
        )
        for value, latent in zip(row, latents, strict=True)
        if value > 0
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


def test_a_corpus_without_a_single_firing_has_blocks_all_the_same(tmp_path: Path) -> None:
    store = CodeStore(tmp_path, 5)
    [block] = list(store.feature_blocks())
    assert (block.first, block.last, len(block.values)) == (0, 5, 0)
    assert moments(block).fires.tolist() == [0] * 5
    silent = Tokens(
        np.zeros(3, np.int32),
        np.arange(3, dtype=np.int32),
        np.zeros((3, 2), np.float32),
        np.zeros((3, 2), np.uint16),
    )
    store.add(make_chunk(silent, 5, 0))
    assert store.counts().tolist() == [0] * 5
    assert len(strongest_features(silent, 5).feature) == 0


@given(
    values=hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(2**-100, 2**100, width=32))
)
def test_bins_hold_all_activations_between_their_edges(values: np.ndarray) -> None:
    fitter = BinFitter()
    fitter.see(values)
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
    fitter.see(np.linspace(4, 7.9, 1000, dtype=np.float32))
    assert fitter.bins().count == 32
    empty = BinFitter().bins()
    assert (empty.count, len(empty.edges)) == (1, 2)


@pytest.mark.parametrize("threshold_tokens", [10**9, 30])
def test_pairs_of_many_latents_are_counted_like_those_of_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threshold_tokens: int
) -> None:
    """The path for large dictionaries, on all tokens and on a sample."""
    from mi_crow.mechanistic.features import coactivation

    store = CodeStore(tmp_path, 12)
    tokens = fill(store)
    monkeypatch.setattr(coactivation, "EXACT_LATENTS", 4)
    monkeypatch.setattr(coactivation, "SAMPLE_TOKENS", threshold_tokens)
    sample = TokenSample(63, 12)
    active = np.zeros((63, 12), dtype=bool)
    for n, some in enumerate(tokens):
        for row in range(21):
            held = sample.holds(store.chunks[n].draw[row : row + 1])[0]
            active[n * 21 + row, some.latents[row][some.values[row] > 0]] = held
    assert sample.is_all == (threshold_tokens > 63)
    assert sample.count(store.chunks) == (63 if sample.is_all else pytest.approx(30, abs=12))
    fires = sample.fires(store.chunks, 12)
    assert fires.tolist() == active.sum(0).tolist()
    found = coactivations(store.chunks, sample, fires, range(12), 3)
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


def test_too_many_labels_keep_the_most_frequent() -> None:
    labels = ["a", "b", "b", None, "c", "c", "d"]
    found = labelled_documents(labels, np.zeros(7, dtype=bool), most=2)
    assert found.names == ("b", "c")
    assert found.left_out == 2
    assert found.label.tolist() == [2, 0, 0, -1, 1, 1, 2]


def test_neighbours_are_the_highest_cosines_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from mi_crow.mechanistic.features import directions as module

    monkeypatch.setattr(module, "_CELLS", 100)  # several rounds
    rows = torch.randn(23, 8, generator=torch.Generator().manual_seed(0))
    rows[4] = 0
    unit = torch.nn.functional.normalize(rows, dim=1)
    cosine = unit @ unit.T
    cosine.fill_diagonal_(-2)
    found = list(neighbours(rows, 5))
    assert len(found) > 1
    torch.testing.assert_close(torch.cat([f.cosine for f in found]), cosine.topk(5).values)
    assert all((f.other != torch.arange(len(f.other))[:, None] + f.first).all() for f in found)


def test_a_lone_feature_has_no_neighbours() -> None:
    assert list(neighbours(torch.ones(1, 4), 5)) == []
    assert next(iter(neighbours(torch.eye(3), 5))).other.shape == (3, 2)


@pytest.mark.parametrize("width", [1, 6, 1500])
def test_the_map_is_the_plane_of_greatest_spread(width: int) -> None:
    generator = torch.Generator().manual_seed(1)
    rows = 0.01 * torch.randn(40, width, generator=generator)
    rows[:, 0] += torch.linspace(-3, 3, 40)
    points = plane(rows)
    assert points.shape == (40, 2)
    torch.testing.assert_close(points, plane(rows))
    spread = torch.corrcoef(torch.stack([points[:, 0], rows[:, 0]]))[0, 1]
    assert spread > 0.99


def test_directions_compare_encoder_and_decoder() -> None:
    decoder = torch.eye(3) * 2
    encoder = torch.tensor([[1.0, 0, 0], [0, -1, 0], [1, 1, 0]])
    found = directions(decoder, encoder)
    assert found.decoder_norm.tolist() == [2.0, 2.0, 2.0]
    torch.testing.assert_close(found.encoder_decoder_cosine, torch.tensor([1.0, -1.0, 0.0]))


@pytest.mark.parametrize("bias", [False, True])
def test_the_logit_lens_goes_through_norm_and_unembedding(
    bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mi_crow.mechanistic.features import logits as module

    monkeypatch.setitem(module._CELLS, "cpu", 120)
    torch.manual_seed(0)
    norm: torch.nn.Module = torch.nn.LayerNorm(6) if bias else torch.nn.RMSNorm(6, eps=1e-6)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.uniform_(0.5, 2.0)
    head = torch.nn.Linear(6, 40, bias=False)
    decoder = torch.randn(11, 6)
    rows = norm(torch.nn.functional.normalize(decoder, dim=1) * 6**0.5)
    expected = head(rows - norm(torch.zeros(1, 6))).detach()
    found = list(LogitLens(norm, head).effects(decoder, 4))
    assert len(found) > 1
    for name, largest in (("promoted", True), ("suppressed", False)):
        values = torch.cat([getattr(f, f"{name}_value") for f in found])
        ids = torch.cat([getattr(f, name) for f in found])
        torch.testing.assert_close(values, expected.topk(4, largest=largest).values)
        torch.testing.assert_close(expected.gather(1, ids), values)
    centred = expected - expected.mean(1, keepdim=True)
    spread = centred.square().mean(1).sqrt()
    skew = (centred / spread[:, None]).pow(3).mean(1)
    kurtosis = (centred / spread[:, None]).pow(4).mean(1) - 3
    torch.testing.assert_close(torch.cat([f.skew for f in found]), skew)
    torch.testing.assert_close(torch.cat([f.kurtosis for f in found]), kurtosis)


@pytest.mark.parametrize("bos", [True, False])
def test_token_texts_join_to_the_text(bos: bool) -> None:
    tokenizer = build_tokenizer(bos=bos)
    texts = [*TEXTS, "", " leading and trailing ", "\x00\x1b[1m\t\r\n", "</s> inside"]
    ids = [list(row) for row in tokenizer(texts)["input_ids"]]
    for text, row, pieces in zip(
        texts, ids, document_token_texts(tokenizer, texts, ids), strict=True
    ):
        assert len(pieces) == len(row)
        assert "".join(pieces[1 if bos else 0 :]) == text
        assert not bos or pieces[0] == "<s>"


def test_token_texts_of_cut_and_of_foreign_ids() -> None:
    tokenizer = build_tokenizer()
    text = TEXTS[0]
    ids = list(tokenizer(text)["input_ids"])
    [cut] = document_token_texts(tokenizer, [text], [ids[:5]])
    assert text.startswith("".join(cut[1:]))
    [foreign] = document_token_texts(tokenizer, ["another text"], [ids])
    assert "".join(foreign) == tokenizer.decode(ids)


def test_single_tokens_have_readable_texts() -> None:
    tokenizer = build_tokenizer()
    ids = list(tokenizer(" the harbour")["input_ids"])
    texts = vocabulary_texts(tokenizer, [*ids, 10**6])
    assert texts[0] == "<s>"
    assert "".join(texts[1:-1]) == " the harbour"
    assert texts[-1] == "<1000000>"
