"""Names of hook points: ours and TransformerLens's. Torch-free."""

import re

# Our short names and TransformerLens's for the same tensor in block N: blocks.N.<this>.
TRANSFORMER_LENS = {
    "resid_pre": "hook_resid_pre",
    "attn_in": "attn.hook_in",
    "z": "attn.hook_z",
    "attn_out": "hook_attn_out",
    "resid_mid": "hook_resid_mid",
    "mlp_in": "mlp.hook_in",
    "mlp_out": "hook_mlp_out",
    "resid_post": "hook_resid_post",
}
# Further TransformerLens names. hook_mlp_in and hook_attn_in are the stream before the norm.
_ALIASES = {
    "hook_attn_in": "resid_pre",
    "hook_mlp_in": "resid_mid",
    "attn.hook_out": "attn_out",
    "mlp.hook_out": "mlp_out",
}
# Outputs of sub-modules themselves, which other tools call by the module's name.
_RAW = ("attn_raw", "mlp_raw")
EMBEDDING = "hook_embed"  # the token embedding's output; without a number
SHORT = (*TRANSFORMER_LENS, *_RAW)

_FROM = {hook: kind for kind, hook in TRANSFORMER_LENS.items()} | _ALIASES
_HOOK = re.compile(r"blocks\.(\d+)\.((?:(?:attn|mlp)\.)?hook_\w+)")
_NORMALISED = re.compile(r"blocks\.(\d+)\.ln([12])\.hook_normalized")


def short_name(name: str) -> str:
    """The short name for a TransformerLens name; `name` itself if it is one, or if it is the point
    before a norm's gain (`blocks.3.ln2.hook_normalized`), which has no short name; else ''."""
    kind, _, number = name.rpartition(".")
    if kind in SHORT and re.fullmatch(r"\d+", number):
        return f"{kind}.{int(number)}"
    if _NORMALISED.fullmatch(name):
        return name
    match = _HOOK.fullmatch(name)
    if match is None or match[2] not in _FROM:
        return ""
    return f"{_FROM[match[2]]}.{int(match[1])}"


def number_of(point: str) -> int | None:
    """The block's number in a short name (see `short_name`); None for other names."""
    match = _NORMALISED.fullmatch(point)
    digits = match[1] if match is not None else point.rpartition(".")[2]
    return int(digits) if short_name(point) == point != "" else None


def transformer_lens_name(point: str) -> str:
    """`blocks.15.hook_resid_post` for `resid_post.15`; '' if there is no such name."""
    if point == EMBEDDING or _NORMALISED.fullmatch(point):
        return point
    kind, _, number = point.rpartition(".")
    known = TRANSFORMER_LENS.get(kind)
    return f"blocks.{number}.{known}" if known is not None else ""
