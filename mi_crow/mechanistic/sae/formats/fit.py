"""Whether an SAE fits a hook point: its FVU on some text, and which alternatives fit better."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mi_crow.errors import MiCrowError, UserError
from mi_crow.language_model.capture_pass import run_to
from mi_crow.language_model.hook_points.block import names_of
from mi_crow.language_model.tokenize import special_ids, special_mask, start_id
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.centring import can_centre, set_centring
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
from mi_crow.mechanistic.sae.cross_layer.two_models import TwoModelCrosscoder
from mi_crow.mechanistic.sae.fitting import check_widths
from mi_crow.mechanistic.sae.formats.fit_figures import (
    OUTLIER_FACTOR,
    POOR_FVU,
    Captured,
    Fit,
    fits_better,
)
from mi_crow.mechanistic.sae.formats.fit_layers import check_layers, check_two_models
from mi_crow.mechanistic.sae.formats.layer_check import OTHER_PLACE
from mi_crow.mechanistic.sae.quality import Quality, reconstruction_quality
from mi_crow.mechanistic.sae.targets import point_read, target_layer
from mi_crow.progress import NullProgress, Progress, raise_if_stopped
from mi_crow.same_fields import same_fields

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel
    from mi_crow.language_model.layers import HookPoint

_BATCH = 16  # texts
_COMPARED = 2048  # tokens that alternatives are tried on


def check_fit(
    lm: "LanguageModel",
    sae: SparseAutoencoder,
    texts: Iterable[str],
    context_length: int = 128,
    file_point: str = "",
    bos: str = "auto",
    progress: Progress | None = None,
) -> Fit:
    """Runs texts through the model and the SAE at its hook point.

    The obvious alternatives are tried on some of the tokens: `file_point` and other hook points of
    the block and its neighbours, other scalings of the input, centred inputs, a BOS token added,
    left out or counted. `bos` says whether texts start with one (auto: as in the SAE's metadata).
    Raises NotFoundError for an unknown layer, UserError when the widths differ or there is no text,
    CancelledError when `progress` was asked to stop.
    """
    progress = progress or NullProgress()
    rows = _token_rows(lm, sae, texts, context_length, bos)
    if isinstance(sae, TwoModelCrosscoder):
        return check_two_models(lm, sae.to(lm.device), rows, progress)
    capture = partial(_capture, lm, progress)
    if isinstance(sae, CrossLayerSae):
        return check_layers(lm, sae.to(lm.device), rows, capture)
    point, target = _points(lm, sae)
    centring = set_centring(lm, sae)
    sae.to(lm.device)
    tokens = capture(rows, {point, target})
    x, y = tokens.at[point][tokens.ordinary], tokens.at[target][tokens.ordinary]
    limit = sae.metadata.outlier_norm or _limit(x)
    quality = _quality(sae, x, y, limit)
    some = _quality(sae, x[:_COMPARED], y[:_COMPARED], limit).fvu
    few = rows[: 1 + _COMPARED // context_length]
    tried = dict(_alternatives(sae, tokens, (point, target)))
    if not sae.centred and can_centre(lm, sae, point):
        with _changed(sae, "centred", True):
            fvu = _quality(sae, x[:_COMPARED], y[:_COMPARED], limit).fvu
        tried["the mean of each activation subtracted (--centred)"] = fvu
    for name, other in _other_starts(lm, few, context_length):
        found = capture(other, {point, target})
        tried[name] = _fvu_of_some(sae, found, point, target)
    tried |= _other_points(lm, sae, (point, target), few, file_point, capture)
    return same_fields(
        Fit,
        quality,
        layer=point,
        outlier_norm=limit,
        alternatives=tried,
        warnings=(*([centring] if centring else []), *_warnings(point, quality.fvu, some, tried)),
    )


def _token_rows(
    lm: "LanguageModel", sae: SparseAutoencoder, texts: Iterable[str], length: int, bos: str
) -> list[list[int]]:
    """Token ids of each text that has any. Raises UserError for none, or only special tokens."""
    given = list(texts)
    start = sae.metadata.bos(bos)
    rows = [ids for ids in lm.tokenize(given, length, start) if ids] if given else []
    if not rows:
        raise UserError(
            "the dataset has no text to check the SAE on", hint="give another --dataset"
        )
    special = special_ids(lm.tokenizer)
    if all(one in special for ids in rows for one in ids):
        raise UserError("the texts contain only special tokens", hint="give another --dataset")
    return rows


def _points(lm: "LanguageModel", sae: SparseAutoencoder) -> "tuple[HookPoint, HookPoint]":
    """Where the SAE reads and what it predicts. Raises UserError."""
    point = target = point_read(lm, sae)
    if sae.transcodes:
        said = target_layer(sae)
        if not said:
            raise UserError(
                "the transcoder does not name the layer that it predicts",
                hint="name it with --target-layer",
            )
        target = lm.layers.resolve(said)
    widths = [(where.point, lm.layers.width(where)) for where in (point, target)]
    check_widths("the SAE", sae, f"model {lm.model_id!r}", widths, OTHER_PLACE)
    return point, target


def _warnings(
    point: "HookPoint", fvu: float, some: float, tried: dict[str, float]
) -> tuple[str, ...]:
    found = []
    if not fvu <= POOR_FVU:
        found.append(f"FVU {fvu:.3g} at {point.point}: the SAE does not fit these activations")
    best = min(tried, key=lambda name: _sortable(tried[name]), default=None)
    if best is not None and fits_better(tried[best], some):
        found.append(f"it fits better with {best}: FVU {tried[best]:.3g} instead of {some:.3g}")
    return tuple(found)


def _sortable(value: float) -> float:
    return value if value == value else float("inf")


def _alternatives(
    sae: SparseAutoencoder, tokens: Captured, points: "Sequence[HookPoint]"
) -> Iterator[tuple[str, float]]:
    """Other ways to read the same activations, by name, with the FVU of each."""
    x, y = (tokens.at[where][tokens.ordinary][:_COMPARED] for where in points)
    yield from _other_scales(sae, x, y)
    if not bool(tokens.ordinary.all()):
        x, y = (tokens.at[where][:_COMPARED] for where in points)
        yield "special tokens counted too", _quality(sae, x, y, _limit(x)).fvu


def _fvu_of_some(
    sae: SparseAutoencoder, tokens: Captured, point: "HookPoint", target: "HookPoint"
) -> float:
    x, y = (tokens.at[where][tokens.ordinary][:_COMPARED] for where in (point, target))
    return _quality(sae, x, y, _limit(x)).fvu


def _other_scales(sae: SparseAutoencoder, x: Tensor, y: Tensor) -> Iterator[tuple[str, float]]:
    """The same activations, scaled on the way in and back on the way out."""
    size = x.shape[1] ** 0.5
    scale = size / float(torch.linalg.vector_norm(x.float(), dim=1).mean())
    if sae.input_norm == "none":
        name = f"inputs scaled to a mean norm of sqrt(d) (--scale {scale:.4g})"
        yield name, _quality(sae, scale * x, scale * y, _limit(scale * x)).fvu
    names = {
        "none": "inputs unchanged",
        "constant_norm_rescale": "each token scaled to norm sqrt(d)",
        "layer_norm": "each token normalised by a LayerNorm",
    }
    for kind, name in names.items():
        if kind != sae.input_norm and not sae.transcodes:
            with _changed(sae, "input_norm", kind):
                yield name, _quality(sae, x, y, _limit(x)).fvu
    if not sae.transcodes:
        name = "b_dec " + ("not " if sae.apply_b_dec_to_input else "") + "subtracted from the input"
        with _changed(sae, "apply_b_dec_to_input", not sae.apply_b_dec_to_input):
            yield name, _quality(sae, x, y, _limit(x)).fvu


def _other_starts(
    lm: "LanguageModel", rows: Sequence[list[int]], context_length: int
) -> Iterator[tuple[str, list[list[int]]]]:
    """The same texts with a BOS token at the start, or without it."""
    bos = start_id(lm.tokenizer)
    if bos is None:
        return
    if all(ids[0] == bos for ids in rows):
        shorter = [ids[1:] for ids in rows if len(ids) > 1]
        if shorter:
            yield "no BOS token at the start of the texts (--bos no)", shorter
    else:
        name = "a BOS token at the start of the texts (--bos yes)"
        yield name, [[bos, *ids][:context_length] for ids in rows]


def _other_points(
    lm: "LanguageModel",
    sae: SparseAutoencoder,
    points: "tuple[HookPoint, HookPoint]",
    rows: list[list[int]],
    file_point: str,
    capture: "Callable[[Sequence[list[int]], set[HookPoint]], Captured]",
) -> dict[str, float]:
    """FVU at other hook points of the same width: those of the block, the residual streams beside
    it, and `file_point`. For a transcoder its input, its target and both are moved."""
    read, written = points
    inputs = _around(lm, read, sae.n_inputs, file_point)
    targets = _around(lm, written, sae.n_outputs, "") if sae.transcodes else []
    if not inputs and not targets:
        return {}
    tokens = capture(rows, {read, written, *inputs, *targets})
    if not sae.transcodes:
        return {
            f"--layer {other.point}": _fvu_of_some(sae, tokens, other, other) for other in inputs
        }
    tried = {
        f"--layer {other.point}": _fvu_of_some(sae, tokens, other, written) for other in inputs
    }
    for target in targets:
        name = f"--target-layer {target.point}"
        tried[name] = _fvu_of_some(sae, tokens, read, target)
        tried |= {
            f"--layer {other.point} {name}": _fvu_of_some(sae, tokens, other, target)
            for other in inputs
        }
    return tried


def _around(lm: "LanguageModel", point: "HookPoint", width: int, extra: str) -> "list[HookPoint]":
    """Other points of that width in and beside the block of `point`, and `extra`."""
    names = [extra] if extra else []
    number = lm.layers.block_of(point)
    if number is not None:
        names += [f"resid_pre.{number}", *names_of(number), f"resid_post.{number}"]
        names += [f"resid_post.{number + 1}", f"resid_pre.{number - 1}"]
    found: list[HookPoint] = []
    # Of two names of one tensor the first is used: what is added rather than the module's output.
    for name in sorted(names, key=lambda name: "_raw." in name):
        try:
            other = lm.layers.resolve(name)
            known = any(other.same_tensor(one) for one in (point, *found))
            if not known and lm.layers.width(other) == width:
                found.append(other)
        except MiCrowError:  # this model has no such point
            continue
    return found


@torch.inference_mode()
def _capture(
    lm: "LanguageModel",
    progress: Progress,
    rows: Sequence[list[int]],
    points: "set[HookPoint]",
) -> Captured:
    """Activations of all tokens except padding, on the model's device."""
    ids = special_ids(lm.tokenizer)
    found: dict[HookPoint, list[Tensor]] = {point: [] for point in points}
    ordinary = []
    waiting = iter(rows)
    while batch := list(islice(waiting, _BATCH)):
        raise_if_stopped(progress)
        encoding = lm.padded(batch)
        seen = run_to(lm, list(points), encoding.input_ids, encoding.attention_mask)
        there = encoding.attention_mask.bool()
        for point in points:
            found[point].append(seen[point][there].float())
        ordinary.append(~special_mask(encoding.input_ids, ids)[there])
    return Captured(
        {point: torch.cat(parts) for point, parts in found.items()}, torch.cat(ordinary)
    )


def _quality(sae: SparseAutoencoder, x: Tensor, y: Tensor, limit: float) -> Quality:
    return reconstruction_quality(sae, x, limit, y if sae.transcodes else None)


def _limit(x: Tensor) -> float:
    """The norm above which a token is an outlier."""
    norms = torch.linalg.vector_norm(x.float(), dim=1)
    return OUTLIER_FACTOR * float(norms.median()) if len(norms) else float("inf")


@contextmanager
def _changed(sae: SparseAutoencoder, name: str, value: Any) -> Iterator[None]:
    before = getattr(sae, name)
    setattr(sae, name, value)
    try:
        yield
    finally:
        setattr(sae, name, before)
