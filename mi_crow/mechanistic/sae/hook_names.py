"""Hook points as other tools name them, and our short names for them."""

import re

from mi_crow.language_model.hook_points.names import EMBEDDING, short_name, transformer_lens_name

# Where causal language models keep their blocks, and how they name the modules of a block.
_BLOCKS = re.compile(
    r"((?:model\.|transformer\.|gpt_neox\.|decoder\.|language_model\.|backbone\.)*)"
    r"(?:layers|h|blocks)\.(\d+)(?:\.(\w+(?:\.\w+)*?))??(?:\.(input|output))?"
)
_ATTENTION = ("self_attn", "attn", "attention", "self_attention")
_MLP = ("mlp", "feed_forward", "ffn", "moe", "block_sparse_moe")
# A module's output is what it computes, which is not always what is added to the stream.
_OUTPUTS = {
    **dict.fromkeys(_MLP, "mlp_raw"),
    **dict.fromkeys(_ATTENTION, "attn_raw"),
    # Norms between a sub-layer and the stream, in models that have them.
    "pre_feedforward_layernorm": "mlp_in",
    "post_feedforward_layernorm": "mlp_out",
}
_INPUTS = {
    **dict.fromkeys(_MLP, "mlp_in"),
    **dict.fromkeys(_ATTENTION, "attn_in"),
    **{
        f"{attention}.{projection}": "z"
        for attention in _ATTENTION
        for projection in ("o_proj", "out_proj", "c_proj", "dense")
    },
}


def hook_name_of(point: str, layer: str) -> str:
    """`blocks.15.hook_resid_post` for `resid_post.15`; the module's name where none exists."""
    return transformer_lens_name(point) or layer


def point_of(name: str) -> str:
    """The short name of a hook point, named as in any tool, where it is certain; '' otherwise.

    Accepts short names, a block's number, TransformerLens names and module names, which may end
    in `.input` or `.output`: a block's output is `resid_post`, that of its MLP `mlp_raw`, that of
    its attention `attn_raw`.
    """
    if re.fullmatch(r"\d+", name):
        return f"resid_post.{name}"
    if (known := short_name(name)) or name == EMBEDDING:
        return known or name
    match = _BLOCKS.fullmatch(name)
    if match is None or (match[3] or "").rpartition(".")[2].startswith("hook_"):
        return ""
    if match[3] is None:
        return f"resid_{'pre' if match[4] == 'input' else 'post'}.{match[2]}"
    kind = (_INPUTS if match[4] == "input" else _OUTPUTS).get(match[3])
    return f"{kind}.{match[2]}" if kind is not None else ""


def module_of(name: str) -> str:
    """`name` itself when it is a full module name whose hook point is certain; '' otherwise. It
    ends in `.input` for a module's input, except for a block, whose point says that."""
    match = _BLOCKS.fullmatch(name)
    if match is None or not match[1] or not point_of(name):
        return ""
    module = name.removesuffix(".output")
    return module if match[3] is not None else module.removesuffix(".input")
