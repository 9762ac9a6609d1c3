"""`cfg.json` of SAELens, old and new, as typed values; what is not known is refused by name."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mi_crow.errors import CorruptDataError, UserError
from mi_crow.mechanistic.sae.formats.saelens_names import (
    ARCHITECTURES,
    OLD_METADATA_KEYS,
    OLD_TRAINING_KEYS,
    RULE_KEYS,
    TRAINING_KEYS,
)
from mi_crow.store.atomic import read_json

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
_OLD_RULE_KEYS = {"activation_fn", "activation_fn_kwargs", "finetuning_scaling_factor"}
_TAKES_K = ("topk", "batchtopk", "matryoshka", "groupmax")


@dataclass(frozen=True)
class SaelensConfig:
    """What the SAE computes, and what the file says about it."""

    name: str  # the architecture as the file has it
    architecture: str  # as our classes have it
    d_in: int
    d_sae: int
    k: int | None
    widths: tuple[int, ...] | None
    rescales: bool  # pre-activations are multiplied by the decoder rows' norms
    apply_b_dec_to_input: bool
    normalisation: str
    dtype: torch.dtype | None
    metadata: dict[str, Any]

    @property
    def transcodes(self) -> bool:
        return self.architecture.endswith("transcoder")

    @property
    def trained_as(self) -> bool:
        """Whether it is one of ours that is stored as another architecture."""
        return self.architecture != ARCHITECTURES[self.name]


def read_config(path: Path) -> SaelensConfig:
    """The configuration in a file.

    Raises NotFoundError without it, CorruptDataError when it describes no SAE, UserError naming
    a key, an architecture or a value that this version does not know.
    """
    cfg = read_json(path)
    if not isinstance(cfg, dict):
        raise CorruptDataError(f"{path} does not describe an SAE (no object)")
    new = isinstance(cfg.get("metadata"), dict)
    cfg = cfg if new else _from_flat(cfg, path)
    _refuse_unknown(set(cfg) - RULE_KEYS - TRAINING_KEYS, path)
    try:
        return _typed(cfg, path)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise CorruptDataError(f"{path} does not describe an SAE ({said})") from error


def _typed(cfg: dict[str, Any], path: Path) -> SaelensConfig:
    name = cfg["architecture"]
    if name not in ARCHITECTURES:
        raise UserError(
            f"{path} is of an SAE of architecture {name!r}, which cannot be read",
            hint=f"supported: {', '.join(ARCHITECTURES)}",
        )
    shape = cfg.get("reshape_activations")
    if shape not in (None, "none", "hook_z"):
        raise UserError(f"{path} reshapes activations by {shape!r}, which is not known")
    metadata = dict(cfg["metadata"])
    own = metadata.get("mi_crow") or {}
    rule = own.get("trained_as") or {**cfg, "architecture": ARCHITECTURES[name]}
    architecture = str(rule["architecture"])
    takes_k = architecture.removesuffix("_transcoder") in _TAKES_K
    k = _number(rule, "k") if takes_k else None
    if k is not None and architecture in ("batchtopk", "matryoshka") and not k.is_integer():
        architecture, k = "jumprelu", None  # a fraction of a latent a token: the same at inference
    widths = rule.get("matryoshka_widths") if architecture == "matryoshka" else None
    return SaelensConfig(
        name=name,
        architecture=architecture,
        d_in=int(_number(cfg, "d_in")),
        d_sae=int(_number(cfg, "d_sae")),
        k=None if k is None else math.floor(k),
        widths=None if widths is None else tuple(int(width) for width in widths),
        rescales=bool(cfg.get("rescale_acts_by_decoder_norm")),
        apply_b_dec_to_input=bool(cfg.get("apply_b_dec_to_input", True)),
        normalisation=str(cfg.get("normalize_activations") or "none"),
        dtype=_DTYPES.get(str(cfg.get("dtype")).removeprefix("torch.")),
        metadata=metadata,
    )


def _number(cfg: dict[str, Any], key: str) -> float:
    """A number above 0. Raises KeyError or ValueError naming the key."""
    value = cfg[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{key} is {value!r}, not a number above 0")
    return float(value)


def _from_flat(cfg: dict[str, Any], path: Path) -> dict[str, Any]:
    """The configuration of a file older than 6.0, as 6.0 has it."""
    flat = {_RENAMED.get(key, key): value for key, value in cfg.items()}
    known = RULE_KEYS | _OLD_RULE_KEYS | OLD_METADATA_KEYS | OLD_TRAINING_KEYS
    _refuse_unknown(set(flat) - known, path)
    new = {key: value for key, value in flat.items() if key in RULE_KEYS}
    new["metadata"] = {key: value for key, value in flat.items() if key in OLD_METADATA_KEYS}
    new.setdefault("architecture", "standard")
    if isinstance(new.get("normalize_activations"), bool):
        scaled = new["normalize_activations"]
        new["normalize_activations"] = "expected_average_only_in" if scaled else "none"
    if flat.get("finetuning_scaling_factor"):
        raise UserError(f"{path} has a finetuning_scaling_factor, which cannot be read")
    activation = flat.get("activation_fn") or "relu"
    options = dict(flat.get("activation_fn_kwargs") or {})
    if activation == "topk":
        new["architecture"], new["k"] = "topk", options.pop("k", None)
    elif activation != "relu":
        raise UserError(f"{path} has the activation function {activation!r}, which is not known")
    unknown = [key for key, value in options.items() if value]
    _refuse_unknown({f"activation_fn_kwargs.{key}" for key in unknown}, path)
    return new


def _refuse_unknown(keys: set[str], path: Path) -> None:
    if keys:
        raise UserError(
            f"{path} has {', '.join(sorted(keys))}, which this version does not know",
            hint="remove it there if it changes nothing about what the SAE computes",
        )
