"""The protocol between the model session and its client: one JSON object per line. Torch-free.

A request is {id, op, params}. Its answer is any number of {id, event: "token", ...} and then one
{id, event: "result", ...} or {id, event: "error", error, hint, kind}. `interrupt` has no answer.
Inspect and generate may name their SAE: they are refused when another one is loaded.

| op | params | result |
| --- | --- | --- |
| ping | | pid |
| load | sae_id, device | sae_id, model_id, revision, layer, device, n_layers, n_features |
| inspect | text, top, bos, windows, order, max_density, named, saes, sae_id | tokens, special, \
outlier, features, per_token, tokens_total, tokens_read, context_length, windows, window_starts, \
bos_added, order, sae_id, layer, point, explained; saes: the same for each, where they are named |
| generate | prompt, interventions, max_new_tokens, temperature, top_p, seed, baseline, bos, \
plausible, kl_budget, n, sae_id, messages (in place of prompt: a chat, see \
`steering.chat.branches`) | baseline, steered, samples, targets, promoted, \
interventions, sae_id, branches (of a chat, with the answers), model_id, revision, \
metrics, stopped, prompt_tokens, bos_added, context_length, shortened_to; on the way tokens \
{side, sample, text} |
| attribute | text, saes, target, against, log_probability, raw_logit, own_token, feature, \
position, top, steps, prune, seed, bos, windows, sae_id | tokens (of the window that holds the \
position), start (tokens before it), tokens_read, target, value, predictions, saes, tree, \
memory_bytes |
| predict | text, ablated [[sae, feature]], position, bos, windows, sae_id | position, \
predictions, predictions_without |
| lens | text, top, bos, windows, sae_id | tokens, special, layers [{point, top, entropy, kl}] |
| patch | clean, corrupted, module, features, feature, target, against, position, bos, sae_id | \
tokens, corrupted_tokens, target, what, points, effects, clean, corrupted |
| layers | | layers: [{name, kind, shape, params, point}] |
| layer_stats | layer, text | layer, shape, tokens, mean_norm, median_norm, max_norm, mean, std |
| hooks | | hooks: [{id, layer, hook, type, enabled}] |
| profile | text | tokens, blocks [{block, name, norm, attention, mlp, attention_cosine, \
mlp_cosine, entropy}], missing |
| watch | text, hooks | tokens, hooks: [{count, mean, std, histogram, edges, top, units, warnings} \
or null], kl |
| interrupt | request (an id; null: all pending ones) | |
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mi_crow.errors import (
    CancelledError,
    CorruptDataError,
    LayerNotFoundError,
    MachineError,
    MiCrowError,
    NotFoundError,
    UserError,
)
from mi_crow.store.json_file import parse_json

INTERRUPT = "interrupt"
FINAL_EVENTS = frozenset({"result", "error"})

_KINDS: dict[str, type[MiCrowError]] = {
    kind.__name__: kind
    for kind in (
        MiCrowError,
        UserError,
        NotFoundError,
        LayerNotFoundError,
        CorruptDataError,
        MachineError,
        CancelledError,
    )
}


class SessionDied(MiCrowError):
    """The session's process ended before it answered."""


@dataclass(frozen=True)
class Request:
    """One request to the session."""

    id: str
    op: str
    params: Mapping[str, Any] = field(default_factory=dict)

    def as_line(self) -> bytes:
        return encode_line({"id": self.id, "op": self.op, "params": dict(self.params)})

    @classmethod
    def from_line(cls, line: bytes) -> "Request":
        """Raises CorruptDataError for a line that is not a request."""
        data = decode_line(line)
        try:
            return cls(str(data["id"]), str(data["op"]), dict(data.get("params") or {}))
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptDataError(f"not a request ({error!r})") from error


def encode_line(message: Mapping[str, Any]) -> bytes:
    """`message` as one line; no text in it can end the line early."""
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"


def decode_line(line: bytes) -> dict[str, Any]:
    """The object in a line. Raises CorruptDataError."""
    data = parse_json(line, "a line of the session's protocol")
    if not isinstance(data, dict):
        raise CorruptDataError("not an object of the session's protocol")
    return data


def error_event(request_id: str, error: BaseException) -> dict[str, Any]:
    """The event that reports `error` to a client, in one sentence."""
    if isinstance(error, MiCrowError):
        # A kind unknown to the client is reported as the nearest known one.
        kind = next(base.__name__ for base in type(error).__mro__ if base.__name__ in _KINDS)
        message, hint = str(error), error.hint
    else:
        first = (str(error).strip().splitlines() or [""])[0][:200]
        message = f"{type(error).__name__}: {first}" if first else type(error).__name__
        hint, kind = "", MiCrowError.__name__
    return {"id": request_id, "event": "error", "error": message, "hint": hint, "kind": kind}


def error_from_event(event: Mapping[str, Any]) -> MiCrowError:
    """The error that an event reports, of the same kind."""
    error = _KINDS.get(str(event.get("kind")), MiCrowError)(str(event.get("error", "")))
    error.hint = str(event.get("hint", ""))
    return error
