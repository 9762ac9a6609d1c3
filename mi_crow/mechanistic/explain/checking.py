"""Whether a feature does what its name says: where it fires on texts of one's own, and where not.

A text may mark places with double brackets, `the [[harbour]] at dawn`: the feature is expected to
fire in each, and nowhere else. One without marks is expected to make it fire somewhere; texts
against, nowhere.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from mi_crow.errors import UserError
from mi_crow.language_model.capture_pass import run_to
from mi_crow.language_model.detokenize import shown_tokens
from mi_crow.mechanistic.explain.check_result import Check, Place
from mi_crow.mechanistic.sae.fitting import check_has_feature
from mi_crow.mechanistic.steering.inspection import activations_of, read_text

if TYPE_CHECKING:
    from mi_crow.mechanistic.steering.loading import LoadedSae

_MARK = re.compile(r"\[\[(.+?)\]\]", re.DOTALL)
_AROUND = 6  # tokens either side of a place
MOST_TEXTS = 2000


def marked(text: str) -> tuple[str, list[tuple[int, int]]]:
    """The text without its marks, and the characters that they were around.

    >>> marked("a [[b]] c")
    ('a b c', [(2, 3)])
    """
    plain, spans, last = "", [], 0
    for match in _MARK.finditer(text):
        plain += text[last : match.start()]
        spans.append((len(plain), len(plain) + len(match[1])))
        plain += match[1]
        last = match.end()
    return plain + text[last:], spans


@torch.inference_mode()
def check_feature(
    loaded: "LoadedSae",
    feature: int,
    texts_for: Sequence[str],
    texts_against: Sequence[str] = (),
    bos: str = "auto",
    threshold: float = 0.0,
) -> Check:
    """What a feature does on texts; it counts as firing where its activation is above `threshold`.
    Raises NotFoundError for an unknown feature, UserError for too many texts or none."""
    check_has_feature(feature, loaded.sae_id, loaded.sae.n_latents)
    if not 0 < len(texts_for) + len(texts_against) <= MOST_TEXTS:
        raise UserError(f"a check takes 1 to {MOST_TEXTS:,} texts")
    wanted: list[Place] = []
    fired: list[Place] = []
    alarms, can_alarm = 0, bool(texts_against)
    for number, text in enumerate((*texts_for, *texts_against)):
        is_for = number < len(texts_for)
        plain, spans = marked(text)
        tokens, acts, ends = _read(loaded, feature, plain, bos)
        begins, first = [0, *ends[:-1]], len(wanted)
        can_alarm |= bool(spans)
        if is_for and spans:
            wanted += [
                Place(number, plain[max(a - 40, 0) : a], plain[a:b], plain[b : b + 40], 0.0, True)
                for a, b in spans
            ]
        elif is_for:
            wanted.append(Place(number, "", plain[:80], "", 0.0, True))
        for place in (place for place, act in enumerate(acts) if act > 0):
            inside: tuple[int, ...] = ()
            if is_for and not spans:
                inside = (first,)
            elif is_for:
                begin, end = begins[place], ends[place]
                inside = tuple(first + n for n, (a, b) in enumerate(spans) if begin < b and end > a)
            fired.append(_place(number, tokens, acts, place, inside, -1 if inside else alarms))
            alarms += not inside and is_for
        alarms += not is_for
    fired.sort(key=lambda one: -one.activation)
    sizes = len(texts_for), len(texts_against)
    return Check(feature, *sizes, tuple(wanted), tuple(fired), threshold, can_alarm)


def _read(
    loaded: "LoadedSae", feature: int, text: str, bos: str
) -> tuple[list[str], list[float], list[int]]:
    """The tokens of a text as they are shown, the activation on each, and the characters up to the
    end of each; special tokens left out."""
    lm, sae = loaded.lm, loaded.sae
    wanted = torch.tensor([feature], device=sae.device)
    tokens: list[str] = []
    acts: list[float] = []
    ends: list[int] = []
    for ids in read_text(lm, text, sae.metadata.bos(bos), windows=True).rows:
        encoding = lm.padded([ids])
        read = run_to(lm, loaded.points, encoding.input_ids, encoding.attention_mask)
        layers = [read[point][0] for point in loaded.points]
        if loaded.other is not None:
            layers = loaded.other.beside(layers, encoding.input_ids, encoding.attention_mask)
        special = encoding.special[0]
        found = activations_of(sae.encode_sparse(torch.cat(layers, dim=-1)), wanted)[:, 0].float()
        if sae.metadata.outlier_norm is not None:
            norms = torch.stack([torch.linalg.vector_norm(x.float(), dim=-1) for x in layers])
            found = found.masked_fill(norms.amax(dim=0) > sae.metadata.outlier_norm, 0.0)
        for shown, act, left_out in zip(
            shown_tokens(lm.tokenizer, ids), found.tolist(), special.tolist(), strict=True
        ):
            if not left_out:
                tokens.append(shown)
                acts.append(act)
                ends.append((ends[-1] if ends else 0) + len(shown))
    return tokens, acts, ends


def _place(
    number: int,
    tokens: Sequence[str],
    acts: Sequence[float],
    place: int,
    hits: tuple[int, ...],
    alarm: int,
) -> Place:
    before = "".join(tokens[max(place - _AROUND, 0) : place])
    after = "".join(tokens[place + 1 : place + 1 + _AROUND])
    return Place(number, before, tokens[place], after, acts[place], bool(hits), hits, alarm)
