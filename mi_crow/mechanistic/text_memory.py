"""How much memory a text takes in a model, and the error that names a length that would fit."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from mi_crow.errors import MachineError

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel

Needs = Callable[[int], int]
"""The bytes that a number of tokens takes, about."""


class Sizes(NamedTuple):
    """What the memory of a pass depends on."""

    width: int
    inner: int  # of the MLP
    heads: int
    vocabulary: int
    element: int  # bytes of a number


def sizes_of(lm: "LanguageModel") -> Sizes:
    """The sizes of a model, from its config; the usual ratio where it does not say one."""
    import torch

    config = lm.model.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    width = int(getattr(text, "hidden_size", 0) or 1)
    return Sizes(
        width,
        int(getattr(text, "intermediate_size", 0) or 4 * width),
        int(getattr(text, "num_attention_heads", 1) or 1),
        lm.embedding_rows or 0,
        torch.empty((), dtype=lm.dtype).element_size(),
    )


def pass_bytes(lm: "LanguageModel", tokens: int, *, latents: int = 0, logits: bool = False) -> int:
    """About how many bytes a forward pass takes beside the model: its widest block, the latents of
    an SAE before all but a few are dropped, and the logits of every token where they are wanted."""
    one = sizes_of(lm)
    block = tokens * (4 * one.width + 2 * one.inner) + one.heads * tokens * tokens
    return block * one.element + tokens * 4 * (latents + (2 * one.vocabulary if logits else 0))


@contextmanager
def naming_a_length(lm: "LanguageModel", what: str, tokens: int, needs: Needs) -> Iterator[None]:
    """Inside the block running out of memory raises a MachineError that says how long a text would
    fit. `what` is done with the tokens, in words."""
    from mi_crow.causes import forget_locals, out_of_memory

    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        forget_locals(error)  # else they would count as what does not fit
        raise too_long(lm, what, tokens, needs) from error


def too_long(lm: "LanguageModel", what: str, tokens: int, needs: Needs) -> MachineError:
    """The error for a text that memory ran out on: it names a length that would fit."""
    free = _free(lm)
    fits = tokens // 2
    while free is not None and fits > 1 and needs(fits) > free:
        fits //= 2
    return MachineError(
        f"the device is out of memory for {what} {tokens} tokens",
        hint=f"a text of about {max(fits, 1)} tokens would fit",
    )


def _free(lm: "LanguageModel") -> int | None:
    from mi_crow.language_model.placement.devices import free_bytes

    return free_bytes(lm.device) if lm.device.type == "cuda" else None
