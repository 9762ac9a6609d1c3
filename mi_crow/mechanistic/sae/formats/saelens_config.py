"""`cfg.json` of SAELens, old and new, as typed values. Unknown keys and values that may change the
rule are refused by name."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mi_crow.errors import CorruptDataError, UserError
from mi_crow.mechanistic.sae.architectures import BY_NAME, BY_SAELENS_NAME
from mi_crow.mechanistic.sae.formats.families import NO_RULE_OF_TOKENS
from mi_crow.mechanistic.sae.formats.saelens_names import (
    OLD_METADATA_KEYS,
    OLD_RULE_KEYS,
    OLD_TRAINING_KEYS,
    PURSUIT_KEYS,
    RULE_KEYS,
    TRAINING_KEYS,
    may_change_rule,
)
from mi_crow.store.json_file import read_object
from mi_crow.store.json_object import JsonObject, finite

_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}
_RENAMED = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
_PURSUIT, _TEMPORAL = "matching_pursuit", "temporal"
_FRACTIONAL_K = ("batchtopk", "matryoshka")  # latents per token, on average
_TRAINS_WITH_K = ("batchtopk", "matryoshka_batchtopk")  # as SAELens names them


@dataclass(frozen=True)
class SaelensConfig:
    """What the SAE computes, and its metadata."""

    name: str  # the architecture as in the file
    architecture: str  # our name for it
    d_in: int
    d_sae: int
    d_out: int | None  # of a transcoder, where given
    k: int | None
    widths: tuple[int, ...] | None
    options: dict[str, Any]  # others that its rule takes
    rescales: bool  # pre-activations are multiplied by the norms of the decoder rows
    apply_b_dec_to_input: bool
    normalisation: str
    dtype: torch.dtype | None
    metadata: JsonObject
    unknown: dict[str, Any]  # keys that are assumed not to affect the rule

    @property
    def transcodes(self) -> bool:
        return BY_NAME[self.architecture].transcodes


def read_config(path: Path) -> SaelensConfig:
    """The configuration in a file.

    Raises NotFoundError for a missing file, CorruptDataError when it does not describe an SAE,
    UserError naming an unknown architecture, or an unknown key or value that may change the rule.
    """
    cfg = read_object(path, unique_keys=True)
    new = "metadata" in cfg.values
    known = set(RULE_KEYS | TRAINING_KEYS)
    if not new:
        known |= OLD_RULE_KEYS | OLD_METADATA_KEYS | OLD_TRAINING_KEYS | set(_RENAMED)
    name = cfg.text("architecture") if new else cfg.text("architecture", "standard")
    if name not in BY_SAELENS_NAME:
        why = f": {NO_RULE_OF_TOKENS}" if name == _TEMPORAL else ""
        raise UserError(
            f"{path} describes an SAE of architecture {name!r}, which cannot be read{why}",
            hint=f"supported: {', '.join(BY_SAELENS_NAME)}",
        )
    known |= PURSUIT_KEYS if name == _PURSUIT else set()
    unknown = set(cfg) - known
    refuse_unknown({key for key in unknown if may_change_rule(key)}, path)
    cfg = cfg if new else _from_flat(cfg)
    try:
        return _typed(cfg, {key: cfg.values[key] for key in sorted(unknown)})
    except (KeyError, ValueError) as error:
        said = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise CorruptDataError(f"{path} does not describe an SAE ({said})") from error


def _typed(cfg: JsonObject, unknown: dict[str, Any]) -> SaelensConfig:
    name = cfg.text("architecture")
    shape = cfg.text("reshape_activations", "none")
    if shape not in ("none", "hook_z"):
        raise UserError(f"{cfg.place} reshapes activations by {shape!r}, which is not known")
    metadata = cfg.object("metadata")
    architecture, rule = _rule(cfg, metadata)
    takes_k = "k" in BY_NAME[architecture].takes
    k = _number(rule.values, "k") if takes_k else None
    if k is not None and not k.is_integer():
        if architecture not in _FRACTIONAL_K:
            raise ValueError(f"k is {k!r}, not a whole number")
        # A fractional k, on average over tokens: at inference only the threshold is left of it.
        architecture, k = "jumprelu", None
    widths = None
    if architecture == "matryoshka":
        widths = rule.integers("matryoshka_widths", ()) or None
    return SaelensConfig(
        name=name,
        architecture=architecture,
        d_in=_count(cfg, "d_in"),
        d_sae=_count(cfg, "d_sae"),
        d_out=_count(cfg, "d_out") if "d_out" in cfg else None,
        k=None if k is None else math.floor(k),
        widths=widths,
        options=_pursuit(cfg) if architecture == _PURSUIT else {},
        rescales=_rescales(cfg, takes_k),
        apply_b_dec_to_input=_flag(cfg, "apply_b_dec_to_input", True),
        normalisation=cfg.text("normalize_activations", "none"),
        dtype=dtype_of(cfg),
        metadata=metadata,
        unknown=unknown,
    )


def _rule(cfg: JsonObject, metadata: JsonObject) -> tuple[str, JsonObject]:
    """Our name of the architecture and the object that holds its options, for some of ours those of
    the training. Raises CorruptDataError for combinations that we do not write."""
    trained = metadata.object("mi_crow", {}).object("trained_as", {})
    if not trained.values:
        return BY_SAELENS_NAME[cfg.text("architecture")].name, cfg
    architecture = trained.text("architecture")
    if cfg.text("architecture") != "jumprelu" or architecture not in _FRACTIONAL_K:
        raise CorruptDataError(
            f"{cfg.place} is of architecture {cfg.text('architecture')!r} and was trained as "
            f"{architecture!r}, which contradict each other"
        )
    return architecture, trained


def _pursuit(cfg: JsonObject) -> dict[str, Any]:
    """When a pursuit stops; keys that are missing have SAELens's defaults."""
    found: dict[str, Any] = {}
    if "residual_threshold" in cfg.values:
        found["residual_threshold"] = cfg.number("residual_threshold", least=0)
    if cfg.values.get("max_iterations") is not None:
        found["max_iterations"] = _count(cfg, "max_iterations")
    if "stop_on_duplicate_support" in cfg.values:
        found["stop_on_duplicate_support"] = cfg.flag("stop_on_duplicate_support")
    return found


def _rescales(cfg: JsonObject, takes_k: bool) -> bool:
    rescales = _flag(cfg, "rescale_acts_by_decoder_norm", False)
    name = cfg.text("architecture")
    if rescales and not takes_k and name not in _TRAINS_WITH_K:
        raise UserError(
            f"{cfg.place} has rescale_acts_by_decoder_norm, which an SAE of architecture {name!r} "
            "does not have"
        )
    return rescales


def dtype_of(cfg: JsonObject) -> torch.dtype | None:
    """That of the weights, None where the file does not say it. Raises UserError."""
    said = cfg.text("dtype", None)
    if said is None:
        return None
    if said.removeprefix("torch.") not in _DTYPES:
        raise UserError(
            f"{cfg.place} has the dtype {said!r}, which is not known",
            hint=f"known: {', '.join(_DTYPES)}",
        )
    return _DTYPES[said.removeprefix("torch.")]


def _flag(cfg: JsonObject, key: str, default: bool) -> bool:
    """A flag of the rule; null is ambiguous, and refused."""
    return cfg.flag(key) if key in cfg.values else default


def _count(cfg: JsonObject, key: str) -> int:
    """A whole number above 0. Raises KeyError or ValueError naming the key."""
    number = _number(cfg.values, key)
    if not number.is_integer():
        raise ValueError(f"{key} is {number!r}, not a whole number")
    return int(number)


def _number(values: Mapping[str, Any], key: str) -> float:
    """A number above 0. Raises KeyError or ValueError naming the key."""
    value = values[key]
    number = finite(value)
    if number is None or number <= 0:
        raise ValueError(f"{key} is {value!r}, not a number above 0")
    return number


def _from_flat(cfg: JsonObject) -> JsonObject:
    """The configuration of a file from before 6.0 in the layout of 6.0; unknown keys stay."""
    flat: dict[str, Any] = {}
    for key, value in cfg.values.items():
        name = _RENAMED.get(key, key)
        if name in flat and flat[name] != value:
            raise CorruptDataError(f"{cfg.place} gives {name} twice, once as {key}")
        flat[name] = value
    old = JsonObject(flat, cfg.place)
    gone = OLD_RULE_KEYS | OLD_METADATA_KEYS | OLD_TRAINING_KEYS
    new = {key: value for key, value in flat.items() if key not in gone}
    new["metadata"] = {key: value for key, value in flat.items() if key in OLD_METADATA_KEYS}
    new.setdefault("architecture", "standard")
    if isinstance(new.get("normalize_activations"), bool):
        scaled = new["normalize_activations"]
        new["normalize_activations"] = "expected_average_only_in" if scaled else "none"
    if old.flag("finetuning_scaling_factor", False):
        raise UserError(f"{cfg.place} has a finetuning_scaling_factor, which cannot be read")
    _add_activation(new, old)
    return JsonObject(new, cfg.place)


def _add_activation(new: dict[str, Any], old: JsonObject) -> None:
    """The activation function, which distinguished what are now two architectures."""
    activation = old.text("activation_fn", "relu")
    options = dict(old.object("activation_fn_kwargs", {}).values)
    if activation == "topk" and new["architecture"] in ("standard", "topk"):
        new["architecture"], new["k"] = "topk", options.pop("k", None)
    elif activation != "relu":
        raise UserError(
            f"{old.place} has the activation function {activation!r} for the architecture "
            f"{new['architecture']!r}, which is not known"
        )
    unknown = [key for key, value in options.items() if value]
    refuse_unknown({f"activation_fn_kwargs.{key}" for key in unknown}, Path(old.place))


def refuse_unknown(keys: set[str], path: Path) -> None:
    """Raises UserError for keys of a configuration that may say what the SAE computes."""
    if keys:
        raise UserError(
            f"{path} has {', '.join(sorted(keys))}, which this version does not know",
            hint="remove it there if it does not affect what the SAE computes",
        )
