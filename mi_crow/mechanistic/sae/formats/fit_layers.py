"""Whether an SAE over several layers fits its hook points: the FVU of each layer that it predicts,
and which kinds of hook points fit better.

Other kinds are tried in all layers at once: a layer's reconstruction depends on what is read at
all layers before it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mi_crow.errors import MiCrowError, UserError
from mi_crow.language_model.capture.live_pair import check_one_tokenizer
from mi_crow.language_model.capture_pass import run_to
from mi_crow.language_model.tokenize import special_ids, special_mask
from mi_crow.mechanistic.sae.cross_layer.other_model import OtherModel
from mi_crow.mechanistic.sae.cross_layer.points import POINT_KINDS, at_block
from mi_crow.mechanistic.sae.cross_layer.record import BASE, CROSSCODER, TUNED
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
from mi_crow.mechanistic.sae.cross_layer.shared import SharedCrosscoder
from mi_crow.mechanistic.sae.cross_layer.two_models import TwoModelCrosscoder
from mi_crow.mechanistic.sae.fitting import check_width
from mi_crow.mechanistic.sae.formats.fit_figures import (
    OUTLIER_FACTOR,
    POOR_FVU,
    Captured,
    Fit,
    fits_better,
)
from mi_crow.mechanistic.sae.quality import FvuSums
from mi_crow.progress import Progress, raise_if_stopped

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel
    from mi_crow.language_model.layers import HookPoint

_TEXTS = 16  # in a pass
_COMPARED = 512  # tokens that other kinds are tried on

ByLayer = dict[int, Tensor]


def check_layers(
    lm: "LanguageModel",
    sae: CrossLayerSae,
    rows: Sequence[list[int]],
    capture: "Callable[[Sequence[list[int]], set[HookPoint]], Captured]",
) -> Fit:
    """FVU of each layer on the token ids `rows`, of which `capture` gives activations; `fvu` is the
    mean over layers. Raises NotFoundError for a layer that the model lacks, UserError for one of
    another width."""
    reads = dict(zip(sae.layer_numbers, map(lm.layers.resolve, sae.layers), strict=True))
    writes = dict(zip(sae.layer_numbers, map(lm.layers.resolve, sae.target_layers), strict=True))
    _check_widths(lm, sae, reads, writes)
    every = {*reads.values(), *writes.values()}
    sums, limits = _Sums(sae), dict[int, float]()
    for begin in range(0, len(rows), _TEXTS):
        tokens = capture(rows[begin : begin + _TEXTS], every)
        x, y = _rows(tokens, reads), _rows(tokens, writes)
        _set_limits(limits, x)
        sums.add(x, y, _ordinary(x, limits))
    first, few = next(iter(reads.values())), list(rows[: _few(rows)])
    tokens = capture(few, every)
    x, y = _some(_rows(tokens, reads)), _some(_rows(tokens, writes))
    some = _fvu(sae, x, y, _ordinary(x, limits))
    by_kind = dict(_other_kinds(lm, sae, (reads, writes), few, capture))
    found = sums.kept_fvu()
    warnings = [*_poor(found, sae), *_better(some, by_kind)]
    return Fit(
        layer=first,
        **_figures(sums, sae, limits),
        alternatives={name: _mean(fvu) for name, fvu in by_kind.items()},
        warnings=tuple(warnings),
        layers={writes[number].point: value for number, value in found.items()},
        l0_by_layer={writes[number].point: value for number, value in sums.l0_by_layer().items()},
    )


def check_two_models(
    lm: "LanguageModel", sae: TwoModelCrosscoder, rows: Sequence[list[int]], progress: Progress
) -> Fit:
    """FVU of each input of a crosscoder of two models on the token ids `rows`, which both read:
    `lm`, the tuned one, and the base model, which is loaded. A crosscoder of two models names its
    hook points itself, so that no others are tried.

    Raises UserError where `lm` is the base model, the models have different tokenizers or widths do
    not fit, NotFoundError for a layer that one of them lacks.
    """
    if sae.role_of(lm.model_id, lm.revision) == BASE:
        raise UserError(
            f"{lm.model_id!r} is the base model of the SAE, which is read beside the tuned one",
            hint="leave out --model, or name the tuned model with it",
        )
    other = OtherModel(sae, lm)
    check_one_tokenizer(other.lm, lm)
    own = tuple(lm.layers.resolve(name) for name in sae.points_of(TUNED).values())
    models = [(other.lm, one) for one in other.points] + [(lm, one) for one in own]
    for (model, point), width in zip(models, sae.widths, strict=True):
        _check_width(model, point, width)
    sums, limits, special = _Sums(sae), dict[int, float](), special_ids(lm.tokenizer)
    for begin in range(0, len(rows), _TEXTS):
        raise_if_stopped(progress)
        encoding = lm.padded(rows[begin : begin + _TEXTS])
        ids, mask = encoding.input_ids, encoding.attention_mask
        seen = run_to(lm, own, ids, mask)
        inputs = other.beside([seen[point] for point in own], ids, mask)
        ordinary = mask.bool() & ~special_mask(ids, special)
        x = {
            number: values[ordinary].float()
            for number, values in zip(sae.layer_numbers, inputs, strict=True)
        }
        _set_limits(limits, x)
        sums.add(x, x, _ordinary(x, limits))
    found = sums.kept_fvu()
    return Fit(
        layer=own[0],
        **_figures(sums, sae, limits),
        alternatives={},
        warnings=tuple(_poor(found, sae)),
        layers=dict(zip(sae.layers, found.values(), strict=True)),
    )


def _figures(sums: "_Sums", sae: CrossLayerSae, limits: Mapping[int, float]) -> dict[str, Any]:
    """What a Fit has of all layers together."""
    return {
        "fvu": _mean(sums.kept_fvu()),
        "fvu_all": _mean(sums.all_fvu()),
        "l0": sums.l0(),
        "outlier_share": 1 - sums.tokens_kept / max(sums.tokens, 1),
        "outlier_norm": limits.get(sae.layer_numbers[0], float("inf")),
        "tokens": sums.tokens,
    }


def _set_limits(limits: dict[int, float], x: ByLayer) -> None:
    """The norm above which a token is an outlier, of each layer, by the first tokens seen."""
    for number, values in x.items():
        if number not in limits and len(values):
            limits[number] = _limit(values)


def _check_widths(
    lm: "LanguageModel",
    sae: CrossLayerSae,
    reads: "Mapping[int, HookPoint]",
    writes: "Mapping[int, HookPoint]",
) -> None:
    for points, widths, outputs in (
        (reads, sae.widths, False),
        (writes, sae.output_widths, True),
    ):
        for point, width in zip(points.values(), widths, strict=True):
            _check_width(lm, point, width, outputs=outputs)


def _check_width(
    lm: "LanguageModel", point: "HookPoint", width: int, *, outputs: bool = False
) -> None:
    place = f"layer {point.point!r} of model {lm.model_id!r}"
    check_width("the SAE", width, place, lm.layers.width(point), outputs=outputs)


class _Sums:
    """What a pass over all tokens adds up, by layer that is predicted."""

    def __init__(self, sae: CrossLayerSae) -> None:
        self._sae = sae
        widths = dict(zip(sae.layer_numbers, sae.output_widths, strict=True))
        self._kept = {one: FvuSums(width, sae.device) for one, width in widths.items()}
        self._all = {one: FvuSums(width, sae.device) for one, width in widths.items()}
        self._active = dict.fromkeys(widths, 0)
        self.tokens = self.tokens_kept = 0

    @torch.inference_mode()
    def add(self, x: ByLayer, y: ByLayer, keep: Tensor) -> None:
        found = self._sae(x)
        for number, rebuilt in found.reconstruction.items():
            self._all[number].add(y[number], rebuilt)
            self._kept[number].add(y[number][keep], rebuilt[keep])
            self._active[number] += int((found.latents[number].values[keep] != 0).sum())
        self.tokens += len(keep)
        self.tokens_kept += int(keep.sum())

    def l0(self) -> float:
        """Of all layers together; latents that all of them share count once."""
        by_layer = [*self._active.values()]
        active = by_layer[-1] if isinstance(self._sae, SharedCrosscoder) else sum(by_layer)
        return active / max(self.tokens_kept, 1)

    def l0_by_layer(self) -> dict[int, float]:
        """Empty where the latents are of no layer."""
        if isinstance(self._sae, SharedCrosscoder):
            return {}
        return {one: active / max(self.tokens_kept, 1) for one, active in self._active.items()}

    def kept_fvu(self) -> dict[int, float]:
        return {number: sums.fvu() for number, sums in self._kept.items()}

    def all_fvu(self) -> dict[int, float]:
        return {number: sums.fvu() for number, sums in self._all.items()}


def _few(rows: Sequence[list[int]]) -> int:
    """How many texts have enough tokens to compare on."""
    total = 0
    for number, ids in enumerate(rows, 1):
        total += len(ids)
        if total >= _COMPARED:
            return number
    return len(rows)


def _rows(tokens: Captured, points: "Mapping[int, HookPoint]") -> ByLayer:
    return {number: tokens.at[point][tokens.ordinary] for number, point in points.items()}


def _some(x: ByLayer) -> ByLayer:
    return {number: values[:_COMPARED] for number, values in x.items()}


def _ordinary(x: ByLayer, limits: Mapping[int, float]) -> Tensor:
    """The tokens [n] that are an outlier at no layer."""
    norms = [
        torch.linalg.vector_norm(values, dim=1) <= limits.get(number, float("inf"))
        for number, values in x.items()
    ]
    return torch.stack(norms).all(dim=0)


@torch.inference_mode()
def _fvu(sae: CrossLayerSae, x: ByLayer, y: ByLayer, keep: Tensor) -> dict[int, float]:
    return _fvu_of(sae(x).reconstruction, y, keep)


def _fvu_of(rebuilt: ByLayer, y: ByLayer, keep: Tensor) -> dict[int, float]:
    found = {}
    for number, values in y.items():
        sums = FvuSums(values.shape[1], values.device)
        sums.add(values[keep], rebuilt[number][keep])
        found[number] = sums.fvu()
    return found


def _other_kinds(
    lm: "LanguageModel",
    sae: CrossLayerSae,
    points: "tuple[Mapping[int, HookPoint], Mapping[int, HookPoint]]",
    rows: Sequence[list[int]],
    capture: "Callable[[Sequence[list[int]], set[HookPoint]], Captured]",
) -> Iterator[tuple[str, dict[int, float]]]:
    """FVU by layer with other kinds of hook points: of a transcoder its inputs, its targets and
    both are moved."""
    reads, writes = points
    inputs = _kinds(lm, reads, sae.widths)
    targets = {} if sae.architecture == CROSSCODER else _kinds(lm, writes, sae.output_widths)
    wanted = [reads, writes, *inputs.values(), *targets.values()]
    tokens = capture(rows, {point for one in wanted for point in one.values()})
    y_of = {name: _some(_rows(tokens, one)) for name, one in targets.items()}
    y = _some(_rows(tokens, writes))
    for kind, read in {"": reads, **inputs}.items():
        x = _some(_rows(tokens, read))
        keep = _ordinary(x, {number: _limit(values) for number, values in x.items()})
        with torch.inference_mode():
            rebuilt = sae(x).reconstruction
        name = f"--layer {kind}" if kind else ""
        if kind:
            yield name, _fvu_of(rebuilt, x if sae.architecture == CROSSCODER else y, keep)
        for target, other in y_of.items():
            yield f"{name} --target-layer {target}".strip(), _fvu_of(rebuilt, other, keep)


def _limit(x: Tensor) -> float:
    norms = torch.linalg.vector_norm(x, dim=1)
    return OUTLIER_FACTOR * float(norms.median()) if len(norms) else float("inf")


def _kinds(
    lm: "LanguageModel", points: "Mapping[int, HookPoint]", widths: Sequence[int]
) -> "dict[str, dict[int, HookPoint]]":
    """Other kinds that all of these layers have in the same widths, each once."""
    found: dict[str, dict[int, HookPoint]] = {}
    for kind in sorted(POINT_KINDS, key=lambda kind: "_raw" in kind):  # two names of one tensor
        try:
            other = {number: lm.layers.resolve(at_block(kind, number)) for number in points}
            right = [lm.layers.width(one) for one in other.values()] == [*widths]
        except MiCrowError:  # this model has no such point
            continue
        known = (points, *found.values())
        if right and not any(_same(other, one) for one in known):
            found[kind] = other
    return found


def _same(one: "Mapping[int, HookPoint]", other: "Mapping[int, HookPoint]") -> bool:
    return all(point.same_tensor(other[number]) for number, point in one.items())


def _poor(found: Mapping[int, float], sae: CrossLayerSae) -> Iterator[str]:
    poor = [number for number, value in found.items() if not value <= POOR_FVU]
    if poor:
        worst = max(found[number] for number in poor)
        which = (
            "fits no layer" if len(poor) == len(found) else f"does not fit layers {_listed(poor)}"
        )
        place = sae.metadata.hook_name
        yield f"FVU up to {worst:.3g} at {place}: the SAE {which} of these activations"


def _better(some: dict[int, float], by_kind: Mapping[str, dict[int, float]]) -> Iterator[str]:
    """One sentence for each other kind that is the best one of some layers."""
    best: dict[str, list[int]] = {}
    for number, fvu in some.items():
        name = min(by_kind, key=lambda name: _sortable(by_kind[name][number]), default=None)
        if name is not None and fits_better(by_kind[name][number], fvu):
            best.setdefault(name, []).append(number)
    for name, numbers in best.items():
        now = _mean({number: some[number] for number in numbers})
        then = _mean({number: by_kind[name][number] for number in numbers})
        which = "all layers fit" if len(numbers) == len(some) else f"layers {_listed(numbers)} fit"
        yield f"{which} better with {name}: mean FVU {then:.3g} instead of {now:.3g}"


def _listed(numbers: Sequence[int], most: int = 8) -> str:
    shown = ", ".join(map(str, numbers[:most]))
    return shown + (f" and {len(numbers) - most} more" if len(numbers) > most else "")


def _sortable(value: float) -> float:
    return value if value == value else float("inf")


def _mean(values: Mapping[int, float]) -> float:
    return sum(values.values()) / len(values)
