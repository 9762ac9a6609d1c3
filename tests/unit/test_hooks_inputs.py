"""Where the hidden states are among what a module is given, and what hooks do with them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mi_crow.errors import UserError
from mi_crow.hooks import FunctionController
from mi_crow.hooks.hook import Controller, Detector
from mi_crow.hooks.tensors import input_key, input_tensor, replace_input
from mi_crow.mechanistic.sae.source import TensorSource

X, MASK, Y = torch.ones(2, 3), torch.ones(2, dtype=torch.int64), torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("args", "kwargs", "place"),
    [
        ((None, X), {}, 1),
        ((None,), {"mask": MASK, "hidden_states": X}, "hidden_states"),
        ((), {"mask": MASK, "other": X}, "other"),
        ((), {"scale": X, "input_ids": MASK}, "input_ids"),
        ((), {"mask": MASK, "n": 1}, "mask"),
    ],
)
def test_the_hidden_states_are_found(
    args: tuple[Any, ...], kwargs: dict[str, Any], place: int | str
) -> None:
    assert input_key(args, kwargs) == place
    changed = replace_input(args, kwargs, Y)
    assert input_tensor(*changed) is Y
    assert args == () or args[-1] is not Y


def test_a_module_without_a_tensor_is_refused() -> None:
    with pytest.raises(UserError, match="the module has no tensor input"):
        input_key((1,), {"use_cache": True})


def test_a_detector_is_given_the_hidden_states_first() -> None:
    seen: list[Any] = []

    class Watch(Detector):
        def process_activations(self, module: Any, inputs: Any, output: Any) -> None:
            seen.append(inputs)

    watch = Watch("a")
    watch.pre_forward(nn.Identity(), (), {"mask": MASK, "hidden_states": X})
    watch.pre_forward(nn.Identity(), (), {"n": 1})
    watch.pre_forward(nn.Identity(), (X,), {"mask": MASK})
    assert seen[0][0] is X
    assert seen[1] == (1,)
    assert seen[2] == (X,)


@pytest.mark.parametrize("kind", ["rows", "tuple", "wrong"])
def test_what_a_controller_may_give_back(kind: str) -> None:
    class Gives(Controller):
        def modify_activations(
            self, module: Any, inputs: Tensor | None, output: Tensor | None
        ) -> Any:
            return {"rows": (Y[0], Y[1]), "tuple": (Y, MASK), "wrong": (MASK, MASK)}[kind]

    if kind == "wrong":
        with pytest.raises(UserError, match="the controller on layer 'a' returned tuple"):
            Gives("a").forward(nn.Identity(), (), X)
    else:
        assert torch.equal(Gives("a").forward(nn.Identity(), (), X), Y)


def test_a_hook_without_a_model_says_what_it_needs() -> None:
    with (
        pytest.raises(UserError, match="this hook has no model or layer to register on"),
        FunctionController("a", lambda x: x),
    ):
        pass


@pytest.mark.parametrize("shape", [(0, 3), (3,)])
def test_activations_to_train_on_are_a_matrix(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="must be a non-empty"):
        TensorSource(torch.zeros(shape))
