"""What is known of a model before it is loaded: what its files, the runs and the SAEs say."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

from mi_crow.errors import MiCrowError
from mi_crow.language_model.outline import Outline, cached_models, outline_of
from mi_crow.mechanistic.sae.evaluation.standing import Standing, standing_of
from mi_crow.store.runs.glance import Glance, glance_at
from mi_crow.store.workspace import RunSummary, SaeSummary
from tui.messages import ModelAlone
from tui.screens.control.tree import Layer
from tui.text import count

_BLOCK = re.compile(r"(?:.*\.)?(?:layers|h|blocks|block)\.(\d+)")
_TEXTS = 90
_EMBEDDING = re.compile(r"emb|wte|wpe")


@dataclass(frozen=True)
class KnownModel:
    """A model of the workspace, by what can be read without loading it. `layers` are those that
    runs and SAEs name; `outline` is None where its files are not on this machine."""

    name: str
    revision: str | None = None
    runs: tuple[RunSummary, ...] = ()
    saes: tuple[SaeSummary, ...] = ()
    outline: Outline | None = None
    standings: tuple[Standing, ...] = ()  # of its SAEs
    cached: tuple[str, ...] = ()  # models in the hub's cache
    texts: Glance | None = None  # of the newest run

    def same(self, other: "KnownModel | None") -> bool:
        """Whether the files of `other`, which were read, say what those of this one would."""
        return other is not None and (self.name, self.revision, self.saes) == (
            other.name,
            other.revision,
            other.saes,
        )


def known_model(
    sae: SaeSummary | None,
    usual: ModelAlone | None,
    runs: Sequence[RunSummary],
    saes: Sequence[SaeSummary],
) -> KnownModel | None:
    """The model of the open SAE, or else the usual one, before anything is read; None without."""
    name = sae.model_id if sae is not None else usual.model if usual is not None else ""
    if not name:
        return None
    own = tuple(run for run in runs if run.manifest.model_id == name)
    revisions = {run.manifest.revision for run in own}
    return KnownModel(
        name,
        revisions.pop() if len(revisions) == 1 else None,
        own,
        tuple(one for one in saes if one.model_id == name),
    )


def read_known(model: KnownModel) -> KnownModel:
    """The same with what its files say. Blocks on the disk; damaged files say nothing."""
    return replace(
        model,
        outline=outline_of(model.name, model.revision),
        standings=tuple(standing_of(sae) for sae in model.saes),
        cached=tuple(cached_models()),
        texts=_texts_of(model.runs[-1]) if model.runs else None,
    )


def _texts_of(run: RunSummary) -> Glance | None:
    try:
        return glance_at(run.path, run.manifest, _TEXTS)
    except (MiCrowError, OSError):
        return None  # Runs says what is wrong with it


def known_layers(model: KnownModel) -> list[Layer]:
    """The modules that the files name, in the order of the model, and the layers that runs and SAEs
    name. Where no file names modules, the residual stream after each block."""
    stored: dict[str, Layer] = {}
    for run in model.runs:
        for layer in run.manifest.layers:
            stored[layer.name] = Layer(layer.name, "", str(layer.width), None, layer.point)
    for sae in model.saes:
        for name in sae.layers or ((sae.layer,) if sae.layer else ()):
            stored.setdefault(name, Layer(name, "", str(sae.n_inputs)))
    if model.outline is None:
        return list(stored.values())
    found = {layer.name: layer for layer in _from_files(model.outline, list(stored))}
    named = {layer.point for layer in stored.values()}
    for name, layer in list(found.items()):
        if name == layer.point and name in named:  # a run has its module's name
            del found[name]
    for name, layer in stored.items():
        own = found.get(name)
        kept = {"point": layer.point or own.point, "shape": own.shape or layer.shape} if own else {}
        found[name] = layer if own is None else replace(own, **kept)
    return sorted(found.values(), key=lambda layer: _place(layer.name))


def width_of(model: KnownModel, layer: str) -> int | None:
    """The width of a layer's activation, as far as the files say it; None where they do not."""
    for run in model.runs:
        for one in run.manifest.layers:
            if layer in (one.name, one.point):
                return one.width
    return model.outline.width_at(layer) if model.outline is not None else None


def _from_files(outline: Outline, stored: Sequence[str]) -> Iterator[Layer]:
    prefix = _prefix(outline.modules, stored)
    sizes = _parameters(outline)
    for name in outline.modules:
        block = _BLOCK.fullmatch(name)
        inside = block is not None and int(block[1]) < outline.blocks
        shape = outline.tensors.get(f"{name}.weight", ())
        yield Layer(
            prefix + name,
            "block" if inside else _kind(name, shape),
            str(outline.width) if inside else " × ".join(map(str, shape)),
            sizes.get(name),
            f"resid_post.{int(block[1])}" if block is not None and inside else "",
        )
    if not outline.modules:
        for number in range(outline.blocks):
            point = f"resid_post.{number}"
            yield Layer(point, "", str(outline.width), None, point)


def _kind(name: str, shape: Sequence[int]) -> str:
    """What a module is, as far as its name and its weight tell."""
    last = name.rpartition(".")[2]
    if len(shape) == 1:
        return "norm"
    if len(shape) == 2:
        return "embedding" if _EMBEDDING.search(last) else "linear"
    if "attn" in last or "attention" in last:
        return "attention"
    return "MLP" if "mlp" in last else ""


def _prefix(modules: Sequence[str], stored: Sequence[str]) -> str:
    """What the loaded model puts before the names in its files: `transformer.` for GPT-2."""
    known = set(modules)
    for name in stored:
        parts = name.split(".")
        for at in range(len(parts)):
            if ".".join(parts[at:]) in known:
                return "".join(f"{part}." for part in parts[:at])
    return ""


def _parameters(outline: Outline) -> dict[str, int]:
    """Of each module with all that is in it."""
    found: dict[str, int] = {}
    for tensor, shape in outline.tensors.items():
        parts = tensor.split(".")[:-1]
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            found[name] = found.get(name, 0) + prod(shape)
    return found


def _place(name: str) -> tuple[tuple[int, int, str], ...]:
    """Where a module is: embeddings first, numbers in their order, heads last."""
    place = []
    for part in name.split("."):
        rank = 0 if _EMBEDDING.search(part) else 2 if "head" in part or "norm" in part else 1
        number = int(part) if part.isdecimal() else -1
        place.append((rank, number, part))
    return tuple(place)


def runs_on(layer: Layer, model: KnownModel) -> list[RunSummary]:
    """The runs that hold activations of a layer."""
    return [
        run
        for run in model.runs
        if any(one.name == layer.name or one.point == layer.point for one in run.manifest.layers)
    ]


def saes_on(layer: Layer, model: KnownModel) -> list[SaeSummary]:
    """The SAEs that read a layer."""
    names = {layer.name, layer.point} - {""}
    return [sae for sae in model.saes if names & {sae.layer, *sae.layers}]


def what_is_on(layer: Layer, model: KnownModel) -> str:
    """`413k tokens · 1 SAE`; empty where nothing was made of the layer."""
    tokens = sum(run.manifest.n_tokens for run in runs_on(layer, model))
    n_saes = len(saes_on(layer, model))
    words = [f"{count(tokens)} tokens"] if tokens else []
    words += [f"{n_saes} SAE{'s' if n_saes > 1 else ''}"] if n_saes else []
    return " · ".join(words)
