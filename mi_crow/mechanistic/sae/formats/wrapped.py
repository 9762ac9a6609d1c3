"""What other tools put around the tensors of an SAE: prefixes of their names, dictionaries."""

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor

_One = TypeVar("_One")

# By torch.compile, by DistributedDataParallel, and by modules that hold an SAE.
_PREFIXES = ("_orig_mod.", "module.", "model.", "sae.", "ae.", "autoencoder.")
# What checkpoints call the tensors, and what may be beside them without changing what they compute.
_STATES = ("state_dict", "model_state_dict", "model", "sae", "ae", "autoencoder")
_PROGRESS = frozenset(
    [
        *("step", "steps", "global_step", "n_steps", "epoch", "iteration", "tokens", "loss"),
        *("optimizer", "optimizer_state_dict", "scheduler", "scheduler_state_dict", "scaler"),
    ]
)


def without_prefix(found: Mapping[str, _One]) -> dict[str, _One]:
    """The same by names without a prefix of a wrapper that all of them have."""
    named = dict(found)
    while named:
        prefix = next((one for one in _PREFIXES if all(n.startswith(one) for n in named)), None)
        if prefix is None or any(name == prefix for name in named):
            break
        named = {name.removeprefix(prefix): one for name, one in named.items()}
    return named


def tensors_within(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tensors of a checkpoint that has them in a dictionary beside its progress; `found` itself
    where it is none."""
    states = [name for name in _STATES if isinstance(found.get(name), Mapping)]
    if len(states) != 1 or set(found) - _PROGRESS - set(states):
        return found
    inside = found[states[0]]
    plain = all(isinstance(name, str) for name in inside)
    return inside if plain and any(isinstance(one, Tensor) for one in inside.values()) else found
