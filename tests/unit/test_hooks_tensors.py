"""Finding and replacing the tensor in what modules take and give."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPast

from mi_crow.errors import UserError
from mi_crow.hooks import first_tensor, replace_tensor

X, Y, OTHER = torch.zeros(2), torch.ones(2), torch.full((3,), 7.0)


class Pair(NamedTuple):
    hidden: Tensor
    rest: Tensor


@dataclass
class Record:
    name: str
    hidden: Tensor


@pytest.mark.parametrize(
    "value",
    [
        X,
        (X, OTHER),
        (None, X, OTHER),
        [X, OTHER],
        Pair(X, OTHER),
        Record("a", X),
        {"hidden": X, "rest": OTHER},
        BaseModelOutputWithPast(last_hidden_state=X),  # pyright: ignore[reportArgumentType]
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_first_tensor_is_replaced_in_a_new_object_of_the_same_type(value: Any) -> None:
    assert first_tensor(value) is X
    changed = replace_tensor(value, Y)
    assert type(changed) is type(value)
    assert first_tensor(changed) is Y
    assert first_tensor(value) is X
    assert torch.equal(X, torch.zeros(2))


def test_the_rest_stays() -> None:
    assert replace_tensor((None, X, OTHER), Y)[2] is OTHER
    assert replace_tensor(Record("a", X), Y).name == "a"
    output = BaseModelOutputWithPast(last_hidden_state=X, attentions=(OTHER,))  # pyright: ignore[reportArgumentType]
    changed = replace_tensor(output, Y)
    assert changed.last_hidden_state is Y
    assert changed["last_hidden_state"] is Y
    assert changed.attentions[0] is OTHER


@pytest.mark.parametrize("value", [None, (), "text", (1, 2)])
def test_what_holds_no_tensor_is_told(value: Any) -> None:
    with pytest.raises(UserError, match="contains no tensor"):
        first_tensor(value)
