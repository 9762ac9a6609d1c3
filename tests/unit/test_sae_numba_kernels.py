"""What is compiled for a CPU finds what torch finds, and is done without where it does not work."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mi_crow.mechanistic.sae.kernels import compiled, numba_kernels

NUMBERS = st.one_of(
    st.floats(width=32, allow_nan=False),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, float("inf"), float("-inf"), 2.0**-140]),
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    rows=hnp.arrays(
        np.float32,
        st.tuples(st.integers(0, 4), st.integers(1, 90)),
        elements=NUMBERS,
        fill=NUMBERS,
    ),
    share=st.floats(0, 1),
)
def test_the_largest_of_rows_of_any_numbers(rows: np.ndarray, share: float) -> None:
    k = 1 + int(share * (rows.shape[1] - 1))
    given = torch.from_numpy(rows)
    found = numba_kernels.row_topk(given, k)
    assert found is not None
    values, columns = found
    assert torch.equal(values.sort(1, descending=True).values, given.topk(k, dim=1).values)
    assert torch.equal(given.gather(1, columns), values)
    assert (columns.sort(1).values.diff(dim=1) > 0).all(), "no column twice"


@pytest.mark.parametrize("k", [1, 32, 500])
@pytest.mark.parametrize("width", [768, 4609, 40_000])
def test_the_largest_of_long_rows(width: int, k: int) -> None:
    rows = torch.randn(5, width, generator=torch.Generator().manual_seed(k))
    rows[1] = 0.5
    rows[2, 3:] = -torch.inf
    rows[3] = torch.arange(width).remainder(7)
    found = numba_kernels.row_topk(rows, k)
    assert found is not None
    assert torch.equal(found[0].sort(1, descending=True).values, rows.topk(k, dim=1).values)
    assert torch.equal(rows.gather(1, found[1]), found[0])


@pytest.mark.parametrize("column", [0, 3, 199])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_nan_anywhere_is_seen(column: int, sign: float) -> None:
    rows = torch.arange(400.0).view(2, 200)
    assert numba_kernels.row_topk(rows, 3) is not None
    rows[1, column] = sign * torch.nan
    assert numba_kernels.row_topk(rows, 3) is None


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    fired=st.lists(st.sets(st.integers(0, 6), max_size=5), min_size=1, max_size=30),
    dtype=st.sampled_from([np.int16, np.int32]),
    before=st.integers(0, 3),
)
def test_latents_of_the_tokens_on_which_a_feature_fires(
    fired: list[set[int]], dtype: type, before: int
) -> None:
    latents = np.array([latent for some in fired for latent in some], dtype=dtype)
    token_starts = np.cumsum([0, *map(len, fired)])
    tokens = [[n for n, some in enumerate(fired) if feature in some] for feature in range(1, 5)]
    rows = np.concatenate([np.zeros(before, dtype=int), *tokens]).astype(np.int32)
    starts = before + np.cumsum([0, *map(len, tokens)])
    counts = torch.full((4, 7), 2, dtype=torch.int32)
    arrays = (torch.from_numpy(of) for of in (starts, rows, token_starts, latents))
    numba_kernels.count_together(counts, *arrays)
    expected = [[2 + sum(latent in fired[n] for n in of) for latent in range(7)] for of in tokens]
    assert counts.tolist() == expected


@pytest.fixture
def plain_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels as they are written, not compiled: what Numba makes of them is another test's."""
    kernels = ("_count_together", "_strongest", "_maxima", "_bound", "_at_least", "_keep_largest")
    for name in kernels:
        monkeypatch.setattr(numba_kernels, name, getattr(numba_kernels, name).py_func)


@pytest.mark.usefixtures("plain_python")
@pytest.mark.parametrize("k", [1, 2, 5, 12])
@pytest.mark.parametrize(
    "row",
    [
        [0.25] * 12,
        [(n * 7 % 12 - 6) / 10 for n in range(12)],
        [-0.875, 0.5, 0.5, -0.875, 0.5, 0.5, 0.5, -0.5, 0.5, 0.5, 0.5, 0.5],
        [-0.1 * n / 12 for n in range(12)],
        [(n * 29 % 64 - 32) / 64 for n in range(64)],
        [0.0, -0.0, 0.0, 0.8, 0.0, 0.0, -0.8, 0.0, 0.7, 0.7, 0.7, 0.0],
    ],
)
def test_the_rule_for_the_largest_is_right_before_it_is_compiled(row: list[float], k: int) -> None:
    rows = torch.tensor([row, row[::-1]])
    found = numba_kernels.row_topk(rows, k)
    assert found is not None
    assert torch.equal(found[0].sort(1, descending=True).values, rows.topk(k, dim=1).values)
    assert torch.equal(rows.gather(1, found[1]), found[0])
    assert all(len(set(columns)) == k for columns in found[1].tolist())
    rows[1, 3] = torch.nan
    assert numba_kernels.row_topk(rows, k) is None


@pytest.mark.usefixtures("plain_python")
def test_the_rule_for_what_fires_together_is_right_before_it_is_compiled() -> None:
    fired = [[0, 3], [], [1, 3, 2], [3]]
    latents = torch.tensor([one for some in fired for one in some], dtype=torch.int16)
    rows = torch.tensor([0, 2, 3, 1], dtype=torch.int32)  # feature 0 on three tokens, 2 on one
    counts = torch.ones(3, 4, dtype=torch.int32)
    starts = torch.tensor([0, 3, 3, 4])
    numba_kernels.count_together(counts, starts, rows, torch.tensor([0, 2, 2, 5, 6]), latents)
    assert counts.tolist() == [[2, 2, 2, 4], [1, 1, 1, 1], [1, 1, 1, 1]]


@pytest.fixture
def no_verdict() -> Iterator[None]:
    """What was found out about Numba is forgotten before and after."""
    compiled.cpu_kernels.cache_clear()
    yield
    compiled.cpu_kernels.cache_clear()


@pytest.mark.usefixtures("no_verdict")
def test_kernels_that_are_not_compiled_are_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba_kernels.config, "DISABLE_JIT", 1)
    assert compiled.cpu_kernels() is None


@pytest.mark.usefixtures("no_verdict")
@pytest.mark.parametrize("kernel", ["_strongest", "_count_together"])
def test_kernels_that_find_something_else_are_done_without(
    kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*arrays: np.ndarray) -> bool:
        arrays[-2].fill(0)
        return True

    monkeypatch.setattr(numba_kernels, kernel, wrong)
    assert compiled.cpu_kernels() is None


def test_without_a_folder_to_keep_it_in_it_is_compiled_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = numba_kernels.njit

    def no_folder(**options: Any) -> Callable[..., Any]:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)

    monkeypatch.setattr(numba_kernels, "njit", no_folder)
    assert numba_kernels._compiled(_twice)(21) == 42


def _twice(number):
    return 2 * number
