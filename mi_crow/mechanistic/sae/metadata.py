"""Where an SAE belongs: model, hook point, run, and the norm above which it does not apply."""

import re
from dataclasses import dataclass, field, fields
from typing import Any

# Our short point names and the TransformerLens names that other tools look for.
_POINTS = {
    "resid_post": "hook_resid_post",
    "resid_pre": "hook_resid_pre",
    "mlp_out": "hook_mlp_out",
    "attn_out": "hook_attn_out",
}
_FROM_HOOK = {hook: point for point, hook in _POINTS.items()}


@dataclass(frozen=True)
class SaeMetadata:
    """The part of `cfg.json` that says which activations an SAE was made for."""

    model_name: str = ""
    hook_name: str = ""  # TransformerLens name where there is one, else the module's name
    layer: str = ""  # canonical module name, e.g. model.layers.15; '' when unknown
    point: str = ""  # short name, e.g. resid_post.15; '' when unknown
    revision: str | None = None
    tokenizer_hash: str | None = None
    run_id: str | None = None
    outlier_norm: float | None = None  # tokens above it are left as they are; input units
    context_size: int | None = None
    prepend_bos: bool | None = None
    hook_head_index: int | None = None
    other: dict[str, Any] = field(default_factory=dict)  # keys of other tools, kept as they are

    @property
    def layer_signature(self) -> str:
        """What `LanguageModel.layers.resolve` takes: the best name that is known."""
        # The point goes first: a block has one module name for its input and its output.
        return self.point or self.layer or self.hook_name

    def as_json(self) -> dict[str, Any]:
        """The `metadata` object of `cfg.json`."""
        own = {name: getattr(self, name) for name in _OWN}
        shared = {name: getattr(self, name) for name in _SHARED}
        return {**self.other, **shared, "mi_crow": own}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "SaeMetadata":
        """Reads `metadata` of any SAELens file; unknown keys end in `other`."""
        own = data.get("mi_crow") or {}
        shared = {name: data[name] for name in _SHARED if data.get(name) is not None}
        known = {name: own[name] for name in _OWN if own.get(name) is not None}
        if "point" not in known:
            known["point"] = point_of_hook(shared.get("hook_name", ""))
        other = {key: data[key] for key in data if key != "mi_crow" and key not in _SHARED}
        return cls(**shared, **known, other=other)


_OWN = ("layer", "point", "revision", "tokenizer_hash", "run_id", "outlier_norm")
_SHARED = tuple(
    item.name for item in fields(SaeMetadata) if item.name not in _OWN and item.name != "other"
)


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
