"""Hook points as other tools name them, and our short names for them."""

import re

# Our short point names and the TransformerLens names that other tools look for.
_POINTS = {
    "resid_post": "hook_resid_post",
    "resid_pre": "hook_resid_pre",
    "mlp_out": "hook_mlp_out",
    "attn_out": "hook_attn_out",
}
_FROM_HOOK = {hook: point for point, hook in _POINTS.items()}

# Where causal language models keep their blocks, and what they call a block's halves.
_BLOCKS = re.compile(
    r"((?:model\.|transformer\.|gpt_neox\.|decoder\.|language_model\.|backbone\.)*)"
    r"(?:layers|h|blocks)\.(\d+)(?:\.(\w+))?"
)
_HALVES = {
    **dict.fromkeys(("mlp", "feed_forward", "ffn", "moe", "block_sparse_moe"), "mlp_out"),
    **dict.fromkeys(("self_attn", "attn", "attention", "self_attention"), "attn_out"),
}


def hook_name_of(point: str, layer: str) -> str:
    """`blocks.15.hook_resid_post` for `resid_post.15`; the module's name where none exists."""
    kind, _, number = point.rpartition(".")
    return f"blocks.{number}.{_POINTS[kind]}" if kind in _POINTS else layer


def point_of_hook(hook_name: str) -> str:
    """`resid_post.15` for `blocks.15.hook_resid_post`; '' where there is no short name."""
    match = re.fullmatch(r"blocks\.(\d+)\.(hook_\w+)", hook_name)
    if match is None or match[2] not in _FROM_HOOK:
        return ""
    return f"{_FROM_HOOK[match[2]]}.{match[1]}"


def point_of(name: str) -> str:
    """The short name of a hook point that any tool names, where it is certain; '' otherwise.

    Takes short names, a block's number, TransformerLens names and names of modules: a block's
    output is `resid_post`, that of its MLP `mlp_out`, that of its attention `attn_out`.
    """
    if re.fullmatch(r"\d+", name):
        return f"resid_post.{name}"
    kind, _, number = name.rpartition(".")
    if kind in _POINTS and number.isdigit():
        return name
    match = _BLOCKS.fullmatch(name)
    if match is None or (match[3] or "").startswith("hook_"):
        return point_of_hook(name)
    if match[3] is None:
        return f"resid_post.{match[2]}"
    return f"{_HALVES[match[3]]}.{match[2]}" if match[3] in _HALVES else ""


def module_of(name: str) -> str:
    """`name` itself when it is a block's or half block's whole module name; '' otherwise."""
    match = _BLOCKS.fullmatch(name)
    return name if match is not None and match[1] and point_of(name) else ""
