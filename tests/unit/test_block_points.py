"""The special cases of a block's hook points, on records that are written down."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mi_crow.language_model.hook_points import block
from mi_crow.language_model.hook_points.measure import Measured, Sum, Term
from mi_crow.language_model.hook_points.record import BlockRecord, Call

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
Y = X.flip(0) + 1


def call(name: str, module: nn.Module | None = None, begun: int = 0, **more: Any) -> Call:
    more = {"x": X, "y": Y, "ended": begun + 1, "args": (), "kwargs": {}} | more
    return Call(name, module or nn.Linear(4, 4), begun, **more)


def record(*calls: Call, pre: Tensor | None = X, shape: tuple[int, ...] = (2, 3, 4)) -> BlockRecord:
    return BlockRecord("b", pre, pre, shape, shape, 0.0, list(calls))


class Mean(nn.Module):
    """Mixes tokens."""

    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(1)


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("needs more")


@pytest.mark.parametrize(
    ("module", "root", "x", "mixes"),
    [
        (Mean(), "mlp", X.view(2, 3, 4), True),
        (nn.ReLU(), "attn", X.view(2, 3, 4), False),
        (nn.ReLU(), "attn", X, False),  # not [batch, length, width]
        (nn.Flatten(1), "attn", X.view(2, 3, 4), False),
        (Fails(), "self_attn", X.view(2, 3, 4), True),
        (Fails(), "mlp", X.view(2, 3, 4), False),
        (nn.ReLU(), "attention", -X.abs().view(2, 3, 4), True),  # all zero: by its name
        (nn.ReLU(), "mlp", -X.abs().view(2, 3, 4), False),
    ],
)
def test_attention_is_what_mixes_tokens(
    module: nn.Module, root: str, x: Tensor, mixes: bool
) -> None:
    assert block.mixes_tokens(call(root, module, args=(x,)), record()) is mixes


def test_parallel_sublayers_of_one_kind_are_one() -> None:
    stream = (X.view(2, 3, 4),)
    linear = nn.Linear(4, 4)
    mixing = [call("a", nn.Sequential(Mean(), linear), args=stream), call("c", Mean(), args=stream)]
    plain = [call("a", linear, args=stream), call("c", nn.Linear(4, 4), args=stream)]

    def by_kind(calls: list[Call]) -> dict[str, Sum | None]:
        whole = Sum(tuple(Term(one, 1.0) for one in calls), 0.0)
        return block._by_sublayer(record(*calls), Measured(None, None, None, whole))

    assert list(by_kind(mixing)) == ["attn"]
    assert list(by_kind(plain)) == ["mlp"]
    both = by_kind([plain[0], mixing[1]])
    assert both["attn"] is not None
    assert both["mlp"] is not None
    assert [one.call.name for one in both["attn"].terms] == ["c"]
    assert [one.call.name for one in both["mlp"].terms] == ["a"]
    assert list(by_kind(mixing[:1])) == ["attn"]


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ((4, 2, 3, 4), "it carries 4 streams at once"),
        ((9, 7), "its stream has the shape [9, 7], not one row per token"),
    ],
)
def test_a_block_without_a_stream_has_what_its_modules_are_called(
    shape: tuple[int, ...], why: str
) -> None:
    attention = nn.Sequential(nn.Linear(4, 4))
    calls = [
        call("self_attn", attention),
        call("self_attn.0", attention[0], begun=1),
        call("mlp", x=None),
    ]
    found = block.block_points(record(*calls, pre=None, shape=shape), 3, ())
    assert {name: one.name for name, one in found.points.items()} == {
        "attn_raw.3": "b.self_attn",
        "attn_in.3": "b.self_attn",
        "z.3": "b.self_attn.0",
        "mlp_raw.3": "b.mlp",
    }
    assert found.missing["mlp_in.3"] == why
    assert found.missing["resid_mid.3"] == why
    bare = block.block_points(record(call("other"), pre=None, shape=shape), 3, ())
    assert bare.points == {}
    assert bare.missing["z.3"] == why


@pytest.mark.parametrize("kind", ["no weight", "no norm", "shape", "w", "1+w", "nothing recorded"])
def test_how_a_norm_multiplies(kind: str) -> None:
    norm = nn.LayerNorm(4)
    norm.weight.data = torch.tensor([0.5, 1.5, 0.1, 3.0])
    plain = nn.functional.layer_norm(X, (4,))
    cases: dict[str, tuple[nn.Module, Tensor | None, str | None]] = {
        "no weight": (nn.LayerNorm(4, elementwise_affine=False), plain, ""),
        "no norm": (nn.ReLU(), -plain.roll(1, 1), None),
        "shape": (nn.LayerNorm(2), plain, None),
        "w": (norm, norm(X).detach(), "w"),
        "1+w": (norm, plain * (1 + norm.weight.detach()), "1+w"),
        "nothing recorded": (norm, None, None),
    }
    module, y, gain = cases[kind]
    assert block._gain_of(call("ln", module, y=y)) == gain
    if kind == "w":
        assert block._gain_of(call("ln", module, y=plain.roll(1, 1))) is None


def test_the_module_whose_output_is_added_is_the_one_that_feeds_the_norm() -> None:
    one, two = call("a", y=X), call("c", y=Y)
    assert block._raw([one, two], None) is two
    assert block._raw([one, two], call("c.1")) is two
    assert block._raw([one, two], call("ln", x=X)) is one
    other = call("ln", x=X * 3)
    assert block._raw([one, two], other) is None
    assert block._raw([one], other) is one


def test_an_attention_that_adds_the_stream_itself_has_its_own_projection() -> None:
    raw, last = call("attn"), call("attn.out", begun=2)
    assert block._projection(record(raw, last), raw, last) is last
    assert block._projection(record(raw), raw, raw) is None


def test_what_reads_a_norm_and_not_a_dropout() -> None:
    reader = call("attn", begun=5, x=Y)
    norm, dropout = call("ln", nn.LayerNorm(4), y=Y), call("drop", nn.Dropout(), x=Y, y=Y)
    assert block._norm_before(record(dropout, norm, reader), reader) is norm
    assert block._norm_before(record(dropout, reader), reader) is None


def test_without_a_sum_only_what_is_not_in_parallel_has_workers() -> None:
    alone = call("attn", begun=1)
    assert block._workers(record(alone), "attn", None, Measured(None, None, None, None)) == []
    norm = call("ln", nn.LayerNorm(4), x=Y, begun=3)
    total = Sum((Term(norm, 1.0),), 0.0)
    assert block._workers(
        record(alone, norm), "attn", total, Measured(None, None, None, total)
    ) == [alone]
    assert block._worker_of(record(alone, norm), norm) is alone
    nothing = call("ln", nn.LayerNorm(4), x=X * 5)
    assert block._worker_of(record(alone, nothing), nothing) is nothing
