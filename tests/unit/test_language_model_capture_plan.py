"""Batches of a part: every kept token once, rows of like length together, pieces of a batch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mi_crow.language_model.capture.plan import Batch, PartPlan, plan_part
from mi_crow.language_model.capture.windows import Row


def plan_of(lengths: list[int], batch_size: int) -> PartPlan:
    rows = [
        Row(
            number,
            0,
            "text",
            None,
            "train",
            1,
            np.arange(length, dtype=np.int32) + 100 * number,
            np.arange(1, length, dtype=np.int32),  # the first token is a special one
        )
        for number, length in enumerate(lengths)
    ]
    settings = {"shard": 0, "piece": 0, "closes": True, "pinned": False}
    return plan_part(rows, batch_size, fill=-1, **settings)


def in_pieces(batch: Batch, rows: int) -> list[Batch]:
    starts = range(0, len(batch.counts), rows)
    return [batch.rows(slice(start, start + rows)) for start in starts]


@pytest.mark.slow
@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 16), st.integers(1, 5))
def test_each_kept_token_is_picked_once_and_put_in_its_place(
    lengths: list[int], batch_size: int, most: int
) -> None:
    plan = plan_of(lengths, batch_size)
    expected = [100 * number + at for number, n in enumerate(lengths) for at in range(1, n)]
    assert plan.tokens == len(expected)
    found = np.full(plan.tokens, -2)
    for batch in plan.batches:
        assert len(batch.counts) <= batch_size
        for piece in in_pieces(batch, most):
            assert len(piece.counts) <= most
            assert sum(piece.counts) == len(piece.part_rows) == len(piece.kept)
            found[piece.part_rows] = piece.input_ids.reshape(-1)[piece.kept].numpy()
    assert found.tolist() == expected
    assert plan.documents == len(lengths)
    pieces = [piece for batch in plan.batches for piece in in_pieces(batch, most)]
    begun = sum(piece.documents_started for piece in pieces)
    assert begun == sum(length > 1 for length in lengths)


def test_padding_is_a_small_share_of_lengths_that_differ_widely() -> None:
    lengths = np.random.default_rng(0).integers(2, 128, 512).tolist()
    plan = plan_of(lengths, 32)
    assert plan.real_positions == sum(lengths)
    assert plan.positions == sum(batch.input_ids.numel() for batch in plan.batches)
    assert 1 - plan.real_positions / plan.positions < 0.06
    assert plan_of([10] * 64, 32).positions == 640
    assert [len(batch.counts) for batch in plan_of([10] * 70, 32).batches] == [32, 32, 6]


def test_rows_of_like_length_wait_for_a_batch_that_is_worth_it() -> None:
    plan = plan_of([100] * 10 + [20] * 10, 32)
    assert [tuple(batch.input_ids.shape) for batch in plan.batches] == [(10, 100), (10, 20)]
    few = plan_of([100] * 3 + [20] * 10, 32)  # three rows alone are no batch
    assert [tuple(batch.input_ids.shape) for batch in few.batches] == [(8, 100), (5, 20)]
