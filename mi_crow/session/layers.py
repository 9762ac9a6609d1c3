"""The session's operations on layers: a profile over depth, hooks that act on one text."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from mi_crow.errors import MiCrowError, UserError
from mi_crow.hooks.specs import HookSpec

if TYPE_CHECKING:
    from torch import Tensor

    from mi_crow.language_model import LanguageModel


def profile(lm: "LanguageModel", text: str) -> dict[str, Any]:
    """See `attribution.depth.depth_profile`."""
    from mi_crow.mechanistic.attribution.depth import depth_profile

    return depth_profile(lm, text)


def watch(lm: "LanguageModel", text: str, hooks: Sequence[Any]) -> dict[str, Any]:
    """Runs a text under hooks (see `HookSpec`), on each layer in their order.

    `hooks` has what each detector found, with the texts of its greatest tokens, null for the others
    and for what is switched off; `kl` what the controllers change in the model's predictions, in
    nats a token, null without any. Raises UserError for an empty text, and naming the hook for one
    whose layer or neurons the model does not have.
    """
    import torch

    from mi_crow.language_model.context import ForwardContext
    from mi_crow.language_model.detokenize import shown_tokens
    from mi_crow.mechanistic.steering.inspection import check_text

    check_text(text)
    specs = [HookSpec.from_json(one) for one in hooks]
    for place, spec in enumerate(specs, 1):
        if spec.enabled:
            _check_hook(lm, place, spec)
    encoding = lm.encode([text], lm.context)
    ordinary = ~encoding.special[0]

    def rows(x: "Tensor") -> "Tensor":
        same = x.shape[:-1].numel() == ordinary.numel()
        return ordinary.to(x.device) if same else torch.ones(x.shape[:-1], dtype=torch.bool)

    def run() -> "Tensor":
        context = ForwardContext(
            encoding.input_ids, encoding.attention_mask, encoding.special, 0, None
        )
        with torch.inference_mode(), lm.running(context):
            return lm.model(**encoding.as_inputs(), use_cache=False).logits[0].float()

    built = [one.build(rows) if one.enabled else None for one in specs]
    changes = any(one.changes and one.enabled for one in specs)
    with lm.plain():
        plain = run() if changes else None
    with ExitStack() as stack:
        for spec, hook in zip(specs, built, strict=True):
            if hook is not None:
                stack.callback(lm.layers.unregister_hook, lm.layers.register_hook(spec.layer, hook))
        changed = run()
    tokens = shown_tokens(lm.tokenizer, encoding.input_ids[0].tolist())
    return {
        "tokens": int(ordinary.sum()),
        "hooks": [_found(hook, tokens) for hook in built],
        "kl": None if plain is None else _kl(plain[ordinary], changed[ordinary]),
    }


def _check_hook(lm: "LanguageModel", place: int, spec: HookSpec) -> None:
    try:
        point = lm.layers.resolve(spec.layer)
        if spec.kind == "neurons":
            spec.check_width(lm.layers.width(point))
    except MiCrowError as error:
        raise UserError(
            f"hook {place} ({spec.describe()}): {error}",
            hint=f"{error.hint}; remove the hook or switch it off" if error.hint else "remove it",
        ) from error


def _found(hook: Any, tokens: Sequence[str]) -> dict[str, Any] | None:
    """What a detector found, its top rows as tokens where it has one row per token."""
    from mi_crow.hooks.running import StatisticsDetector

    if not isinstance(hook, StatisticsDetector):
        return None
    captured = hook.get_captured()
    top = [[tokens[row] if row < len(tokens) else "", norm] for norm, _, row in captured["top"]]
    return {**captured, "top": top, "units": [list(one) for one in hook.units()]}


def _kl(plain: "Tensor", changed: "Tensor") -> float | None:
    """KL(plain || changed) in nats a token; None where the predictions are not finite."""
    p, q = plain.log_softmax(-1), changed.log_softmax(-1)
    found = float((p.exp() * (p - q)).sum(-1).mean())
    return max(found, 0.0) if found == found else None
