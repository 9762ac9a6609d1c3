"""How much memory an attribution takes, told before it is taken."""

from typing import TYPE_CHECKING

import torch

from mi_crow.errors import MachineError

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel

# Tensors of a block that a backward pass keeps, in widths of the stream and of the MLP: inputs and
# outputs of norms, queries, keys, values, attention's output; gate, up, activation, product.
_STREAMS, _INNER = 12, 4


def attribution_bytes(lm: "LanguageModel", tokens: int, rows: int, first_block: int) -> int:
    """About how many bytes attributing a text of `tokens` takes beside the model: the graph of the
    blocks from `first_block` on, or the `rows` ablations of one batch, whichever is larger."""
    config = lm.model.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    width = int(getattr(text, "hidden_size", 0) or 1)
    inner = int(getattr(text, "intermediate_size", 0) or 4 * width)
    heads = int(getattr(text, "num_attention_heads", 1) or 1)
    vocabulary = lm.embedding_rows or 0
    size = torch.empty((), dtype=lm.dtype).element_size()
    blocks = max(len(lm.layers.blocks()) - first_block, 1)
    kept = tokens * (_STREAMS * width + _INNER * inner) + heads * tokens * tokens
    graph = blocks * kept * size + vocabulary * 12
    batch = rows * (tokens * (4 * width + 2 * inner) * size + tokens * width * 8 + vocabulary * 8)
    return max(graph, batch)


def too_long(lm: "LanguageModel", tokens: int, rows: int, first_block: int) -> MachineError:
    """The error for a text that memory ran out on: it names a length that would fit."""
    free = _free(lm.device)
    fits = tokens // 2
    while free is not None and fits > 1 and attribution_bytes(lm, fits, 1, first_block) > free:
        fits //= 2
    return MachineError(
        f"the device is out of memory for attributing {tokens} tokens",
        hint=f"a text of about {max(fits, 1)} tokens would fit",
    )


def _free(device: torch.device) -> int | None:
    if device.type != "cuda":
        return None
    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info(device)[0])
