"""Where an SAE belongs and where it comes from: model, hook point, run, original file."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from mi_crow.mechanistic.sae.hook_names import module_of, point_of
from mi_crow.store.json_object import JsonObject

# The files of an SAE's folder, as SAELens names them.
CONFIG_NAME = "cfg.json"
WEIGHTS_NAME = "sae_weights.safetensors"


@dataclass(frozen=True)
class SaeMetadata:
    """The part of `cfg.json` on the activations that an SAE was made for."""

    model_name: str = ""
    hook_name: str = ""  # TransformerLens name where there is one, else the module's name
    layer: str = ""  # what was captured: model.layers.15, with `.input` for a module's input, or
    # the short name where no module has the tensor; '' when unknown
    point: str = ""  # short name, e.g. resid_post.15; '' when unknown
    revision: str | None = None
    tokenizer_hash: str | None = None
    run_id: str | None = None
    outlier_norm: float | None = None  # tokens above it are left unchanged; in units of the input
    context_size: int | None = None
    prepend_bos: bool | None = None
    hook_head_index: int | None = None
    source: str | None = None  # the path or hub id of an SAE imported from another format
    source_revision: str | None = None  # its commit on the hub
    format: str | None = None  # its original format
    folded: tuple[str, ...] = ()  # what was folded into the weights on import, one word each
    other: dict[str, Any] = field(default_factory=dict)  # keys of other tools, kept as they are

    @property
    def layer_signature(self) -> str:
        """The best known name for `LanguageModel.layers.resolve`."""
        # The module comes first: it is what was captured, whatever its short name meant then. But
        # a block has the same module name for its input and its output.
        if self.layer and not self.point.startswith("resid_pre."):
            return self.layer
        return self.point or self.hook_name

    @property
    def centred_weights(self) -> bool:
        """Whether the file says that its model's writing weights were centred."""
        loaded = self.other.get("model_from_pretrained_kwargs")
        found = loaded if isinstance(loaded, dict) else self.other
        return found.get("center_writing_weights") is True

    def centring(self) -> "SaeMetadata":
        """A copy which says that its model's writing weights were centred."""
        key = "model_from_pretrained_kwargs"
        loaded = self.other.get(key)
        kept = loaded if isinstance(loaded, dict) else {}
        return replace(self, other={**self.other, key: {**kept, "center_writing_weights": True}})

    def bos(self, asked: str = "auto") -> str:
        """Whether texts start with a BOS token (auto, yes, no): as `asked`, else as in training,
        else as the tokenizer does."""
        if asked != "auto" or self.prepend_bos is None:
            return asked
        return "yes" if self.prepend_bos else "no"

    def as_json(self) -> dict[str, Any]:
        """The `metadata` object of `cfg.json`."""
        own = {name: getattr(self, name) for name in _OWN}
        own |= {name: getattr(self, name) for name in _ORIGIN if getattr(self, name)}
        shared = {name: getattr(self, name) for name in _SHARED}
        return {**self.other, **shared, "mi_crow": own}

    @classmethod
    def from_json(cls, data: dict[str, Any], place: str = "metadata") -> "SaeMetadata":
        """Reads `metadata` of any SAELens file; unknown keys end up in `other`.

        Raises CorruptDataError, naming `place`, for a value of another type.
        """
        found = JsonObject(data, place)
        own = found.object("mi_crow", {})
        shared = {name: _TYPED[name](found, name) for name in _SHARED if name in found}
        known = {name: _TYPED[name](own, name) for name in (*_OWN, *_ORIGIN) if name in own}
        if "point" not in known:
            known["point"] = point_of(shared.get("hook_name", ""))
            known["layer"] = known.get("layer") or module_of(shared.get("hook_name", ""))
        known["folded"] = tuple(known.get("folded", ()))
        other = {key: data[key] for key in data if key != "mi_crow" and key not in _SHARED}
        return cls(**shared, **known, other=other)


_OWN = ("layer", "point", "revision", "tokenizer_hash", "run_id", "outlier_norm")
_ORIGIN = ("source", "source_revision", "format", "folded")
_TYPED: dict[str, Callable[[JsonObject, str], Any]] = {
    **dict.fromkeys((item.name for item in fields(SaeMetadata)), JsonObject.text),
    "outlier_norm": JsonObject.number,
    "context_size": JsonObject.integer,
    "prepend_bos": JsonObject.flag,
    "hook_head_index": JsonObject.integer,
    "folded": JsonObject.texts,
}
_SHARED = tuple(
    item.name
    for item in fields(SaeMetadata)
    if item.name not in (*_OWN, *_ORIGIN) and item.name != "other"
)
