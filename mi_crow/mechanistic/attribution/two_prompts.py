"""Patching a prompt with what another one has, as plain values."""

from functools import partial
from typing import TYPE_CHECKING, Any

from mi_crow.errors import UserError
from mi_crow.mechanistic.attribution.target import (
    Target,
    itself,
    notes_on,
    position_of,
    token_id,
    token_text,
)
from mi_crow.mechanistic.sae.fitting import check_has_feature

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel
    from mi_crow.language_model.tokenize import Encoding
    from mi_crow.mechanistic.attribution.patching import Module
    from mi_crow.mechanistic.steering.loading import LoadedSae


def patch_prompts(
    lm: "LanguageModel",
    clean: str,
    corrupted: str,
    *,
    module: "Module" = "resid",
    loaded: "LoadedSae | None" = None,
    feature: int | None = None,
    target: str | None = None,
    against: str | None = None,
    position: int | None = None,
    bos: str = "auto",
) -> dict[str, Any]:
    """Effects on the difference of two logits of restoring parts of the clean prompt in the
    corrupted one: `effects` [layers][tokens] at `points`.

    A module's contribution or the stream is restored at every block, or with `loaded` what its
    features write (one of them with `feature`). The target is by default the likeliest next token
    of the clean prompt against that of the corrupted one. Raises UserError for prompts of different
    length, or a target that is the same on both; MachineError naming a length that would fit when
    memory runs out.
    """
    from mi_crow.language_model.detokenize import shown_tokens
    from mi_crow.mechanistic.attribution.passage import passages_of
    from mi_crow.mechanistic.attribution.patching import patch_features, patch_modules
    from mi_crow.mechanistic.attribution.site import SaeSite
    from mi_crow.mechanistic.text_memory import naming_a_length, pass_bytes

    used = loaded.sae.metadata.bos(bos) if loaded is not None else bos
    read = [passages_of(lm, one, used) for one in (clean, corrupted)]
    if clean == corrupted:
        raise UserError("both prompts are the same", hint="change a word of the second")
    lengths = [one.total for one in read]
    if lengths[0] != lengths[1]:
        raise UserError(
            f"the prompts have {lengths[0]:,} and {lengths[1]:,} tokens",
            hint="use two prompts with the same number of tokens",
        )
    if read[0].read < lengths[0]:
        raise UserError(
            f"the prompts have {lengths[0]:,} tokens, of which the model reads "
            f"{read[0].read:,} at once",
            hint="shorten both",
        )
    first, second = (one.encodings[0] for one in read)
    place = position_of(lengths[0], position)
    if loaded is not None and feature is not None:
        check_has_feature(feature, loaded.sae_id, loaded.sae.n_latents)
    with naming_a_length(lm, "patching", lengths[0], partial(pass_bytes, lm)):
        goal = _target(lm, first, second, target, against, place)
        if loaded is None:
            found = patch_modules(lm, first, second, goal, module)
        else:
            found = patch_features(SaeSite.of(loaded), first, second, goal, feature)
    return {
        "model_id": lm.model_id,
        "tokens": shown_tokens(lm.tokenizer, first.input_ids[0].tolist()),
        "corrupted_tokens": shown_tokens(lm.tokenizer, second.input_ids[0].tolist()),
        "target": goal.as_json(lm),
        "what": found.what,
        "points": list(found.points),
        "effects": [list(row) for row in found.effects],
        "notes": notes_on(lm, ((target, goal.token), (against, goal.against))),
        "clean": found.clean,
        "corrupted": found.corrupted,
    }


def _target(
    lm: "LanguageModel",
    clean: "Encoding",
    corrupted: "Encoding",
    target: str | None,
    against: str | None,
    position: int,
) -> Target:
    import torch

    given = [None if one is None else token_id(lm, one) for one in (target, against)]
    if given[0] is not None and given[0] == given[1]:
        raise itself(lm, given[0])
    with torch.no_grad(), lm.plain():
        likeliest = [
            int(lm.model(**one.as_inputs(), use_cache=False).logits[0, position].argmax())
            for one in (clean, corrupted)
        ]
    token, other = (
        chosen if chosen is not None else best
        for chosen, best in zip(given, likeliest, strict=True)
    )
    if token == other:
        what, hint = "the likeliest next token", 'give --target " Paris" --against " Rome"'
        if target is not None:
            sentence, hint = f"{what} of the corrupted prompt is the target too", "give --against"
        elif against is not None:
            sentence, hint = f"{what} of the clean prompt is the other answer too", "give --target"
        else:
            sentence = f"{what} is the same on both prompts"
        raise UserError(f"{sentence}: {token_text(lm, token)!r}", hint=hint)
    return Target("difference", position, token, other)
