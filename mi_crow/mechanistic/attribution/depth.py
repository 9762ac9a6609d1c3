"""What each block of a model does to the residual stream of a text: norms, directions, and how sure
the logit lens is."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from mi_crow.errors import MiCrowError, UserError
from mi_crow.language_model.capture_pass import run_to
from mi_crow.mechanistic.attribution.lens import logit_lens, no_blocks
from mi_crow.mechanistic.steering.inspection import check_text

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint, LanguageModel

# What a sub-layer adds, and the stream that it is added to.
_PARTS = (("attention", "attn_out", "resid_pre"), ("mlp", "mlp_out", "resid_mid"))


@torch.inference_mode()
def depth_profile(lm: "LanguageModel", text: str) -> dict[str, Any]:
    """One row for each block, over the ordinary tokens of `text`.

    `norm` is the median L2 norm of the stream after the block, `attention` and `mlp` that of what
    they add to it, `attention_cosine` and `mlp_cosine` the mean cosine between that and the stream
    before it; `entropy` is the mean entropy of the logit lens after the block, in nats. None where
    a model has no such point; `missing` says why, in a sentence each.

    Raises UserError for an empty text, and for a model without residual blocks.
    """
    check_text(text)
    encoding = lm.encode([text], lm.context)
    ordinary = ~encoding.special[0]
    if not bool(ordinary.any()):
        ordinary = torch.ones_like(ordinary)
    points, missing = _points(lm)
    found = run_to(lm, [*points.values()], encoding.input_ids, encoding.attention_mask)
    rows = {name: found[point][0][ordinary].float() for name, point in points.items()}
    try:
        lens = [float(one.entropy[ordinary].mean()) for one in logit_lens(lm, encoding, 1)]
    except UserError as error:
        lens = []
        missing["entropy"] = str(error)
    names = lm.layers.blocks()
    return {
        "model_id": lm.model_id,
        "tokens": int(ordinary.sum()),
        "blocks": [
            {
                "block": number,
                "name": name,
                "norm": _norm(rows[f"resid_post.{number}"]),
                **_contributions(rows, number),
                "entropy": lens[number] if lens else None,
            }
            for number, name in enumerate(names)
        ],
        "missing": list(missing.values()),
    }


def _points(lm: "LanguageModel") -> tuple[dict[str, "HookPoint"], dict[str, str]]:
    """The points that the model has, by short name, and why it lacks others, once a kind."""
    blocks = len(lm.layers.blocks())
    if not blocks:
        raise no_blocks(lm)
    points, missing = {}, {}
    kinds = ["resid_post", *(kind for _, *pair in _PARTS for kind in pair)]
    for number in range(blocks):
        for kind in kinds:
            try:
                points[f"{kind}.{number}"] = lm.layers.resolve(f"{kind}.{number}")
            except MiCrowError as error:
                if kind == "resid_post":
                    raise
                missing.setdefault(kind, str(error))
    return points, missing


def _contributions(rows: dict[str, Tensor], number: int) -> dict[str, float | None]:
    values: dict[str, float | None] = {}
    for name, kind, before in _PARTS:
        added = rows.get(f"{kind}.{number}")
        # Blocks whose sub-layers read the same stream have no point between them.
        stream = rows.get(f"{before}.{number}", rows.get(f"resid_pre.{number}"))
        values[name] = None if added is None else _norm(added)
        values[f"{name}_cosine"] = (
            None
            if added is None or stream is None
            else float(functional.cosine_similarity(added, stream, dim=-1).mean())
        )
    return values


def _norm(rows: Tensor) -> float:
    return float(torch.linalg.vector_norm(rows, dim=-1).median())
