"""How much memory an attribution takes, told before it is taken."""

from typing import TYPE_CHECKING

from mi_crow.mechanistic.text_memory import sizes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mi_crow.language_model import LanguageModel
    from mi_crow.mechanistic.attribution.site import SaeSite
    from mi_crow.mechanistic.sae.base import SparseAutoencoder

# Tensors of a block that a backward pass keeps, in widths of the stream and of the MLP: inputs and
# outputs of norms, queries, keys, values, attention's output; gate, up, activation, product.
_STREAMS, _INNER = 12, 4


def most_ablations(sites: "Sequence[SaeSite]", top: int, tokens: int) -> int:
    """The rows of the greatest batch of ablations on a text of `tokens`: the `top` causes of an
    SAE, as far as so many features can fire, and the six sets beside them."""
    from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
    from mi_crow.mechanistic.sae.rules.topk import TopKSae

    def can_fire(sae: "SparseAutoencoder") -> int:
        k = sae.k if isinstance(sae, TopKSae) else None
        if isinstance(sae, CrossLayerSae):
            k = sae.record.k
        return min(sae.n_latents, tokens * k if k is not None else sae.n_latents)

    return min(top, max(can_fire(one.sae) for one in sites)) + 6


def attribution_bytes(
    lm: "LanguageModel", tokens: int, rows: int, first_block: int, layers: int = 1
) -> int:
    """About how many bytes attributing a text of `tokens` takes beside the model: the graph of the
    blocks from `first_block` on, or the `rows` ablations of one batch at as many layers as an SAE
    writes to, whichever is larger."""
    width, inner, heads, vocabulary, element = sizes_of(lm)
    blocks = max(len(lm.layers.blocks()) - first_block, 1)
    kept = tokens * (_STREAMS * width + _INNER * inner) + heads * tokens * tokens
    graph = blocks * kept * element + vocabulary * 12
    batch = rows * (tokens * (4 * width + 2 * inner) * element + layers * tokens * width * 8)
    return max(graph, batch + rows * vocabulary * 8)
