"""The index pass on another device than the CPU finds what it finds on the CPU.

One device is pretended (`pretend_device.py`), which shows where tensors of two devices would meet;
tests marked `gpu` use a real one.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.mechanistic.features.index import codes
from mi_crow.mechanistic.features.index.codes import CodedTokens, CodeStore, make_chunk
from mi_crow.mechanistic.features.index.encode_pass import Corpus
from mi_crow.mechanistic.features.index.primitives import columns
from mi_crow.mechanistic.features.index.tables import coactivation, feature_tables
from mi_crow.mechanistic.features.index.tables.document_features import strongest_features
from mi_crow.mechanistic.features.index.tables.feature_tables import FeatureTables
from mi_crow.mechanistic.features.index.tables.statistics import BinFitter
from mi_crow.progress import NullProgress
from tests.helpers.index_tokens import tokens_of
from tests.helpers.pretend_device import pretend_device

N_LATENTS, K = 12, 4
LABELS = ("sea", "land", None)
CONFIG = IndexConfig(
    "sae", top_examples=3, bands=3, band_examples=2, window=2, coactivations=3, device="cpu"
)


class Written:
    """Takes the rows of an index: by table, a dict of lists for each time some came."""

    def __init__(self) -> None:
        self.tables: dict[str, list[dict[str, list[Any]]]] = {}

    def append(self, table: str, filled: dict[str, Any]) -> None:
        rows = {
            name: column.to_pylist() if isinstance(column, pa.Array) else list(column)
            for name, column in filled.items()
        }
        self.tables.setdefault(table, []).append(rows)


def corpus_of(
    lengths: list[int], seed: int, values: list[float]
) -> tuple[Corpus, list[CodedTokens]]:
    """Documents of so many tokens, each with K latents of the given values, in two pieces of whole
    documents."""
    rng = np.random.default_rng(seed)
    n = sum(lengths)
    document = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    position = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
    latents = np.argsort(rng.random((n, N_LATENTS)), axis=1)[:, :K].astype(np.int16)
    given = rng.choice(np.array(values, dtype=np.float32), (n, K))
    cut = sum(lengths[: len(lengths) // 2])
    pieces = [
        tokens_of(document[rows], position[rows], given[rows], latents[rows])
        for rows in (slice(0, cut), slice(cut, None))
    ]
    corpus = Corpus(
        [LABELS[label] for label in rng.integers(0, len(LABELS), len(lengths))],
        [rng.random(len(lengths)) < 0.3],
        [np.array(lengths, dtype=np.int64)],
        n,
    )
    return corpus, pieces


@torch.inference_mode()
def written(
    corpus: Corpus, tokens: list[CodedTokens], device: torch.device, folder: Path, budget: int
) -> Written:
    """Every table that comes from activations, worked out on `device`."""
    found, bins, store = Written(), BinFitter(), CodeStore(folder, N_LATENTS, budget)
    for some in tokens:
        there = CodedTokens(*(of.to(device) for of in vars(some).values()))
        bins.add(bins.counted(there.values))
        store.add(make_chunk(there, N_LATENTS, 0))
        found.append("document_features", columns(strongest_features(there, N_LATENTS)))
    writer: Any = found
    FeatureTables(writer, CONFIG, corpus, bins.bins(), {}).write(store, NullProgress())
    return found


def check_same(found: Written, expected: Written) -> None:
    """Sums in double precision may differ in their last digits; nothing else may."""
    assert found.tables.keys() == expected.tables.keys()
    for table, parts in expected.tables.items():
        for mine, other in zip(found.tables[table], parts, strict=True):
            for name, column in other.items():
                exact = name not in ("mean_act", "std_act", "auroc", "auroc_heldout", "lift")
                wanted = column if exact else pytest.approx(column, rel=1e-12, nan_ok=True)
                assert mine[name] == wanted, (table, name)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=2, max_size=9),
    seed=st.integers(0, 2**31),
    values=st.lists(st.sampled_from([0.0, 0.5, 0.7, 1.1, 3.0]), min_size=1, max_size=4),
    budget=st.sampled_from([0, 1 << 30]),
    exact=st.sampled_from([4, 16_384]),
    sampled=st.sampled_from([9, 10**9]),
    block=st.sampled_from([5, 1 << 20]),
)
def test_no_step_mixes_devices_and_all_find_the_same(
    lengths: list[int],
    seed: int,
    values: list[float],
    budget: int,
    exact: int,
    sampled: int,
    block: int,
) -> None:
    """With chunks in memory and in files, few and many latents, all tokens and a sample."""
    corpus, parts = corpus_of(lengths, seed, values)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(coactivation, "EXACT_LATENTS", exact)
        patch.setattr(coactivation, "SAMPLE_TOKENS", sampled)
        patch.setattr(codes.CodeStore.block_ranges, "__defaults__", (block,))
        # The pretended device is there in one thread alone.
        patch.setattr(
            feature_tables, "map_in_order", lambda work, given, _: (work(one) for one in given)
        )
        expected = written(corpus, parts, torch.device("cpu"), Path(folder), 1 << 30)
        with pretend_device() as device:
            found = written(corpus, parts, device, Path(folder), budget)
    check_same(found, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("budget", [0, 1 << 30])
def test_a_gpu_finds_the_same_every_time(tmp_path: Path, budget: int) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    corpus, parts = corpus_of([7, 300, 1, 90] * 20, 0, [0.0, 0.3, 0.7, 1.1, 2.3])
    expected = written(corpus, parts, torch.device("cpu"), tmp_path, 1 << 30)
    once, again = (written(corpus, parts, torch.device("cuda"), tmp_path, budget) for _ in range(2))
    check_same(once, expected)
    assert once.tables == again.tables
