"""Examples of quantile bands: the least draws of each, found among few codes as among all."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mi_crow.mechanistic.features.index.codes import FeatureBlock
from mi_crow.mechanistic.features.index.segments import DRAWS, starts_of
from mi_crow.mechanistic.features.index.tables import bands as module
from mi_crow.mechanistic.features.index.tables.bands import from_bands


def block_of(
    fires: list[int], documents: int, distinct: int, generator: np.random.Generator
) -> FeatureBlock:
    """A block whose features fire so often, in order of the tokens."""
    total = sum(fires)
    feature = np.repeat(np.arange(len(fires)), fires)
    document = generator.integers(0, documents, total)
    document = document[np.lexsort((document, feature))]
    return FeatureBlock(
        first=0,
        last=len(fires),
        starts=starts_of(torch.tensor(fires)),
        feature=torch.from_numpy(feature),
        document=torch.from_numpy(document.astype(np.int32)),
        position=torch.arange(total, dtype=torch.int32),  # no two alike
        draw=torch.from_numpy(generator.integers(0, DRAWS, total).astype(np.int32)),
        values=torch.from_numpy(generator.integers(1, distinct + 1, total).astype(np.float32)),
    )


def expected(block: FeatureBlock, bands: int, in_band: int) -> set[tuple[int, int, int]]:
    """(code, band, rank), one feature and band after another."""
    found = set()
    for feature in range(block.n_features):
        codes = range(int(block.starts[feature]), int(block.starts[feature + 1]))
        values = sorted(float(block.values[code]) for code in codes)
        edges = [values[len(values) * step // bands] for step in range(1, bands)] if values else []
        for band in range(1, bands + 1):
            least: dict[int, int] = {}  # document -> code
            for code in codes:
                if bands - sum(float(block.values[code]) >= edge for edge in edges) != band:
                    continue
                seen = least.setdefault(int(block.document[code]), code)
                if block.draw[code] < block.draw[seen]:
                    least[int(block.document[code])] = code
            chosen = sorted(least.values(), key=lambda code: int(block.draw[code]))[:in_band]
            found |= {(code, band, rank) for rank, code in enumerate(chosen)}
    return found


@pytest.mark.slow
@given(
    fires=st.lists(st.integers(0, 400), min_size=1, max_size=4).filter(any),
    documents=st.sampled_from([1, 3, 60]),
    distinct=st.sampled_from([1, 3, 10**6]),
    bands=st.integers(1, 4),
    in_band=st.integers(0, 3),
    seed=st.integers(0, 2**32),
)
def test_they_are_those_of_least_draw(
    fires: list[int], documents: int, distinct: int, bands: int, in_band: int, seed: int
) -> None:
    block = block_of(fires, documents, distinct, np.random.default_rng(seed))
    found = from_bands(block, bands, in_band)
    rows = list(zip(*(of.tolist() for of in found), strict=True))
    assert len(rows) == len(set(rows))
    assert set(rows) == expected(block, bands, in_band)


@pytest.mark.parametrize(("documents", "all_looked_at"), [(2000, False), (3, True)])
def test_all_codes_are_looked_at_only_where_few_do_not_do(
    documents: int, all_looked_at: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = block_of([20_000, 5], documents, 10**6, np.random.default_rng(0))
    looked_at: list[int] = []
    drawn = module._drawn

    def counting(block: FeatureBlock, codes: torch.Tensor, *rest: object) -> module.Drawn:
        looked_at.append(len(codes))
        return drawn(block, codes, *rest)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(module, "_drawn", counting)
    found = from_bands(block, 4, 5)
    assert len(found.code) > 12
    assert looked_at[0] < 1000
    assert looked_at[1:] == [20_000 if all_looked_at else 0]
