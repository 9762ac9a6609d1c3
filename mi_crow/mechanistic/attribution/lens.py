"""The logit lens: what the model would say after each block, read by its final norm and output
embedding (nostalgebraist 2020, "interpreting GPT: the logit lens")."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mi_crow.errors import UserError
from mi_crow.hooks.tensors import first_tensor
from mi_crow.language_model.hook_points.tap import tap
from mi_crow.mechanistic.attribution.target import token_text
from mi_crow.mechanistic.text_memory import naming_a_length, pass_bytes, sizes_of

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint, LanguageModel
    from mi_crow.language_model.tokenize import Encoding
    from mi_crow.mechanistic.attribution.passage import Passages

_CELLS = 1 << 24  # logits in memory at once
_FITS = 0.05  # relative error of the last block's lens against the output, in half precision


@dataclass(frozen=True)
class LensLayer:
    """The lens after one block; entropy and divergence in nats."""

    point: str
    tokens: Tensor  # int64 [n, k], the likeliest next tokens, the first first
    probabilities: Tensor  # [n, k]
    entropy: Tensor  # [n]
    divergence: Tensor  # [n], KL(output || lens)


@torch.inference_mode()
def logit_lens(lm: "LanguageModel", encoding: "Encoding", top: int = 3) -> list[LensLayer]:
    """The lens after every block for a text [1, n]; that after the last is the output.

    Raises UserError for a model whose logits are not those of its final norm and output embedding,
    MachineError naming a length that would fit when memory runs out.
    """
    points = [lm.layers.resolve(f"resid_post.{n}") for n in range(len(lm.layers.blocks()))]
    length = encoding.input_ids.shape[1]

    def needed(tokens: int) -> int:
        kept = len(points) * tokens * sizes_of(lm).width * 4
        return pass_bytes(lm, tokens, logits=True) + kept

    with naming_a_length(lm, "reading", length, needed):
        return _lens(lm, encoding, points, top)


def _lens(
    lm: "LanguageModel", encoding: "Encoding", points: "list[HookPoint]", top: int
) -> list[LensLayer]:
    seen: dict[int, Tensor] = {}

    def keep(number: int, value: Tensor) -> None:
        seen[number] = value[0].clone()

    with ExitStack() as stack:
        for number, point in enumerate(points):
            stack.callback(tap(lm, point, lambda value, number=number: keep(number, value)))
        with lm.plain():
            output = lm.model(**encoding.as_inputs(), use_cache=False).logits[0]
    if not points:
        raise no_blocks(lm)
    unembed = _Unembedding(lm, seen[len(points) - 1], output)
    return [
        _layer(point.point, unembed, seen[number], output, top)
        for number, point in enumerate(points)
    ]


def no_blocks(lm: "LanguageModel") -> UserError:
    """The error for a model in which no residual stream was found."""
    return UserError(
        f"{lm.model_id!r} has no residual blocks", hint="use a decoder-only language model"
    )


def _layer(point: str, unembed: "_Unembedding", x: Tensor, output: Tensor, top: int) -> LensLayer:
    parts: list[tuple[Tensor, ...]] = []
    for rows in _blocks(len(x), output.shape[-1]):
        lens = unembed(x[rows]).log_softmax(-1)
        real = output[rows].float().log_softmax(-1)
        best = lens.topk(min(top, lens.shape[-1]), dim=-1)
        entropy = -(lens.exp() * lens).sum(-1)
        divergence = (real.exp() * (real - lens)).sum(-1).clamp_min(0)
        parts.append((best.indices, best.values.exp(), entropy, divergence))
    tokens, shares, entropy, divergence = (torch.cat(one) for one in zip(*parts, strict=True))
    return LensLayer(point, tokens, shares, entropy, divergence)


def _blocks(tokens: int, vocabulary: int) -> Iterator[slice]:
    step = max(_CELLS // max(vocabulary, 1), 1)
    return (slice(start, start + step) for start in range(0, tokens, step))


class _Unembedding:
    """Final norm, output embedding, and what the model does to its logits: a factor (Cohere,
    Granite) and a soft cap (Gemma 2), both found where the last block's lens is the output."""

    def __init__(self, lm: "LanguageModel", last: Tensor, output: Tensor) -> None:
        self._norm, self._head = lm.layers.unembedding()
        config = lm.model.config
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
        self._cap: float | None = getattr(text, "final_logit_softcapping", None)
        self._factor = 1.0
        raw, wanted = self(last[-1:]), output[-1:].float()
        if float((raw - wanted).norm()) > _FITS * float(wanted.norm()):
            open_ = self._uncapped(wanted)
            plain = self._plain(last[-1:])
            self._factor = float((plain * open_).sum() / plain.square().sum().clamp_min(1e-12))
            raw = self(last[-1:])
        if float((raw - wanted).norm()) > _FITS * float(wanted.norm()):
            raise UserError(
                f"the logits of {lm.model_id!r} are not those of its final norm and output "
                "embedding",
                hint="the logit lens needs a model that applies its final norm and unembedding "
                "to the last block",
            )

    def __call__(self, x: Tensor) -> Tensor:
        """Logits [n, vocabulary] of activations x [n, d], fp32."""
        logits = self._plain(x) * self._factor
        return logits if not self._cap else self._cap * torch.tanh(logits / self._cap)

    def _plain(self, x: Tensor) -> Tensor:
        normed = x if self._norm is None else first_tensor(_called(self._norm, x[None]))[0]
        return self._head(normed).float()

    def _uncapped(self, logits: Tensor) -> Tensor:
        if not self._cap:
            return logits
        return self._cap * torch.atanh((logits / self._cap).clamp(-0.999999, 0.999999))


def _called(module: nn.Module, x: Tensor) -> Any:
    return module(x)


def text_lens(lm: "LanguageModel", passages: "Passages", top: int) -> dict[str, Any]:
    """`logit_lens` of a text as plain values: tokens as text; lists by layer, then by token."""
    first, *others = (_lens_json(lm, one, logit_lens(lm, one, top)) for one in passages.encodings)
    for one in others:
        for name in ("tokens", "special"):
            first[name] += one[name]
        for layer, more in zip(first["layers"], one["layers"], strict=True):
            for name in ("top", "entropy", "kl"):
                layer[name] += more[name]
    return first


def _lens_json(
    lm: "LanguageModel", encoding: "Encoding", layers: list[LensLayer]
) -> dict[str, Any]:
    from mi_crow.language_model.detokenize import shown_tokens

    texts: dict[int, str] = {}

    def text(number: int) -> str:
        if number not in texts:
            texts[number] = token_text(lm, number)
        return texts[number]

    return {
        "model_id": lm.model_id,
        "tokens": shown_tokens(lm.tokenizer, encoding.input_ids[0].tolist()),
        "special": encoding.special[0].tolist(),
        "layers": [
            {
                "point": one.point,
                "top": [
                    [[text(number), share] for number, share in zip(*row, strict=True)]
                    for row in zip(one.tokens.tolist(), one.probabilities.tolist(), strict=True)
                ],
                "entropy": one.entropy.tolist(),
                "kl": one.divergence.tolist(),
            }
            for one in layers
        ],
    }
