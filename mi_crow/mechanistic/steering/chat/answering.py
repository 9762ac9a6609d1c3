"""The next answer of a conversation, plainly and under interventions."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from mi_crow.errors import UserError
from mi_crow.language_model.chat import chat_prompt, token_roles
from mi_crow.mechanistic.steering.chat.branches import Branches, Message
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.loading import LoadedModel, LoadedSae
from mi_crow.mechanistic.steering.positions import GENERATED_ROLE, read_positions
from mi_crow.mechanistic.steering.run import OnToken, steer_loaded
from mi_crow.store.workspace import Workspace


def answer(
    workspace: Workspace,
    loaded: LoadedSae | LoadedModel,
    branches: Branches,
    interventions: Sequence[Intervention],
    *,
    on_token: OnToken | None = None,
    should_stop: Callable[[], bool] | None = None,
    bos: str = "auto",
    baseline: bool = True,
    **options: Any,
) -> dict[str, Any]:
    """What the assistant says next on both sides: the result of `steer_loaded`, with which it
    shares its options, and `branches` with the (first) answers added.

    Interventions on all tokens act on what the assistant says; any other positions stay (`window
    0:` reaches every token). While both sides have heard the same they are one batch; afterwards
    each continues its own conversation, and `perplexity_ratio` is left out. Without `baseline` only
    the steered side answers, and `branches` stays as it was asked.

    Raises UserError for a conversation that does not end with a question, one that the template
    refuses, an intervention on what a role says that nobody has, and a model without a chat
    template.
    """
    branches.check_asks()
    stack = [for_answers(one) for one in interventions]
    _check_roles(stack, branches)
    shared = {"should_stop": should_stop, "bos": bos, **options}

    def side(messages: Sequence[Message], own: Sequence[Intervention], **more: Any) -> Any:
        prompt = chat_prompt(loaded.lm.tokenizer, messages)
        own_bos = loaded.sae.metadata.bos(bos) if isinstance(loaded, LoadedSae) else bos
        ids = loaded.lm.tokenize([prompt.text], bos=own_bos)[0]
        with loaded.lm.spoken(token_roles(loaded.lm.tokenizer, prompt, ids)):
            return steer_loaded(workspace, loaded, prompt.text, own, **shared, **more)

    def plain(name: str, sample: int, piece: str) -> None:
        if name == "baseline" and on_token is not None:
            on_token(name, sample, piece)

    if branches.alike:
        result = side(branches.steered, stack, on_token=on_token, baseline=baseline)
    else:
        plainly = side(branches.baseline, (), on_token=plain) if baseline else None
        result = side(branches.steered, stack, on_token=on_token, baseline=False)
        result = result if plainly is None else _together(plainly, result)
    if not baseline:
        return {**result, "branches": branches.as_json()}
    said = branches.answered(result["baseline"], result["steered"])
    return {**result, "branches": said.as_json()}


def for_answers(one: Intervention) -> Intervention:
    """An intervention on all tokens as one on what the assistant says."""
    return replace(one, scope=f"role {GENERATED_ROLE}") if one.scope == "all" else one


def _check_roles(stack: Sequence[Intervention], branches: Branches) -> None:
    known = dict.fromkeys([*(one["role"] for one in branches.steered), GENERATED_ROLE])
    for one in stack:
        role = read_positions(one.scope).role
        if one.enabled and role and role not in known:
            raise UserError(
                f"nothing in this chat is said by the role {role!r}",
                hint=f"its roles are {' and '.join(known)}",
            )


def _together(baseline: dict[str, Any], steered: dict[str, Any]) -> dict[str, Any]:
    """The results of both sides as one."""
    pairs = zip(baseline["samples"], steered["samples"], strict=True)
    metrics = dict(steered["metrics"])
    for name in ("tokens", "seconds"):
        metrics[name] += baseline["metrics"][name]
    metrics["tokens_s"] = metrics["tokens"] / max(metrics["seconds"], 1e-9)
    return {
        **steered,
        "baseline": baseline["baseline"],
        "samples": [{"baseline": one["baseline"], "steered": two["steered"]} for one, two in pairs],
        "metrics": metrics,
        "stopped": baseline["stopped"] or steered["stopped"],
    }
