"""How much memory an attribution takes, told before it is taken."""

from typing import TYPE_CHECKING

from mi_crow.mechanistic.text_memory import sizes_of

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel

# Tensors of a block that a backward pass keeps, in widths of the stream and of the MLP: inputs and
# outputs of norms, queries, keys, values, attention's output; gate, up, activation, product.
_STREAMS, _INNER = 12, 4


def attribution_bytes(lm: "LanguageModel", tokens: int, rows: int, first_block: int) -> int:
    """About how many bytes attributing a text of `tokens` takes beside the model: the graph of the
    blocks from `first_block` on, or the `rows` ablations of one batch, whichever is larger."""
    width, inner, heads, vocabulary, element = sizes_of(lm)
    blocks = max(len(lm.layers.blocks()) - first_block, 1)
    kept = tokens * (_STREAMS * width + _INNER * inner) + heads * tokens * tokens
    graph = blocks * kept * element + vocabulary * 12
    batch = rows * (tokens * (4 * width + 2 * inner) * element + tokens * width * 8)
    return max(graph, batch + rows * vocabulary * 8)
