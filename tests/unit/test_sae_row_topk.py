"""The k largest of each row: what torch.topk finds, whatever the shape, with ties and without."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mi_crow.mechanistic.sae.kernels import row_topk as module
from mi_crow.mechanistic.sae.kernels.row_topk import (
    _group_size,
    padding_to_groups,
    row_topk,
    scratch,
)

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@given(
    n=st.integers(1, 20),
    width=st.sampled_from([1, 7, 96, 100, 101, 256, 1152, 1156, 4096, 4608]),
    k=st.integers(1, 9),
    distinct=st.sampled_from([2, 5, 10**6]),
    inference=st.booleans(),
    threads=st.sampled_from([1, 2]),
    compiled=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_it_finds_what_torch_finds(
    n: int,
    width: int,
    k: int,
    distinct: int,
    inference: bool,
    threads: int,
    compiled: bool,
    seed: int,
) -> None:
    k = min(k, width)
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(-distinct, distinct, (n, width), generator=generator).float()
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode(inference):
        if not compiled:
            patch.setattr(module, "cpu_kernels", lambda: None)
        values, columns = row_topk(rows, k)
    assert torch.equal(values.sort(1, descending=True).values, rows.topk(k, dim=1).values)
    assert torch.equal(rows.gather(1, columns), values)
    assert (columns.sort(1).values.diff(dim=1) > 0).all(), "no column twice"


@pytest.mark.parametrize("width", [4608, 131_072])
def test_long_rows_are_grouped_more_than_once(width: int) -> None:
    assert _group_size(width, 32) > 1
    assert _group_size(width // _group_size(width, 32), 32) > 1


@pytest.mark.parametrize("inference", [False, True])
def test_more_rows_than_are_worked_on_at_once_in_training(inference: bool) -> None:
    rows = torch.randn(1100, 256, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(inference):
        values, columns = row_topk(rows, 8)
    assert torch.equal(values.sort(1, descending=True).values, rows.topk(8, dim=1).values)
    assert torch.equal(rows.gather(1, columns), values)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("inference", [False, True])
def test_nan_is_the_largest_and_infinities_count(threads: int, inference: bool) -> None:
    torch.set_num_threads(threads)
    rows = torch.zeros(3, 256)
    rows[0, 17], rows[1, 99], rows[2] = torch.nan, torch.inf, -torch.inf
    rows[2, 5] = -1.0
    with torch.inference_mode(inference):
        values, columns = row_topk(rows, 2)
    assert 17 in columns[0]
    assert values[0].isnan().sum() == 1
    assert 99 in columns[1]
    assert values[2].max() == -1.0
    assert 5 in columns[2]


def test_rows_apart_in_memory_are_read_as_they_are() -> None:
    rows = torch.randn(4, 512, generator=torch.Generator().manual_seed(1))[:, ::2]
    values, columns = row_topk(rows, 3)
    assert torch.equal(rows.gather(1, columns), values)
    assert torch.equal(values.sort(1, descending=True).values, rows.topk(3, dim=1).values)


@pytest.mark.parametrize(("width", "k"), [(97, 4), (98, 4), (4607, 32)])
def test_padding_makes_room_for_groups(width: int, k: int) -> None:
    assert _group_size(width + padding_to_groups(width, k, CPU), k) > 1
    assert padding_to_groups(width, k, torch.device("meta")) == 0


def test_short_rows_are_not_padded() -> None:
    assert padding_to_groups(95, 4, CPU) == 0
    assert padding_to_groups(768, 32, CPU) == 0


def test_a_scratch_block_is_used_again_and_grows() -> None:
    small = scratch("test", (2, 3), torch.float32)
    assert scratch("test", (3, 2), torch.float32).data_ptr() == small.data_ptr()
    assert scratch("test", (2, 3), torch.int64).dtype == torch.int64
    assert scratch("test", (400, 3), torch.float32).shape == (400, 3)


@pytest.mark.parametrize(
    ("threads", "inference", "width", "compiled"),
    [(1, True, 512, True), (1, True, 600, False), (2, True, 512, False), (1, False, 512, False)],
)
def test_compiled_code_is_for_one_thread_and_rows_that_are_not_too_long(
    threads: int,
    inference: bool,
    width: int,
    compiled: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[None] = []
    monkeypatch.setattr(module, "_COMPILED", 512)
    monkeypatch.setattr(module, "cpu_kernels", lambda: asked.append(None))
    torch.set_num_threads(threads)
    with torch.inference_mode(inference):
        row_topk(torch.randn(3, width, generator=torch.Generator().manual_seed(0)), 4)
    assert bool(asked) == compiled
