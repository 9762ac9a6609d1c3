"""Forward passes that explain: one with a graph from the sites on, one with several edits at once.

Model weights never require a gradient: the graph begins at the first site's activation, so that the
blocks before it cost what they cost in inference.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from mi_crow.errors import MiCrowError, UserError
from mi_crow.language_model.hook_points.tap import tap
from mi_crow.mechanistic.attribution.across import Gate, reading_of
from mi_crow.mechanistic.attribution.site import Reading, SaeSite
from mi_crow.mechanistic.attribution.target import Target

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint, LanguageModel
    from mi_crow.language_model.tokenize import Encoding

_TRIED = 6  # tokens of the text on which it is tried whether a pass widens
_SAME = 0.05  # of the difference between two edits, for the results of one to be the same


@dataclass(frozen=True)
class Graph:
    """A pass whose numbers can be differentiated by what is at its sites."""

    logits: Tensor  # [vocabulary] at the position that was asked for
    readings: tuple[Reading, ...]  # in the order of the sites
    gates: tuple[Gate, ...]  # of each site: behind its layers

    def slopes(self, value: Tensor, numbers: Sequence[int], keep: bool = False) -> list[Tensor]:
        """d value / d y of these readings, [n, n_outputs] each; of an SAE over several layers with
        its other layers held. One backward pass for all those of one layer."""
        found: dict[int, Tensor] = {}
        across = [one for one in numbers if self.readings[one].site.several]
        alone = [one for one in numbers if one not in across]
        if alone:
            nodes = [self.readings[one].nodes[0] for one in alone]
            slopes = gradient(value, nodes, keep=keep or bool(across))
            found.update(zip(alone, slopes, strict=True))
        for one in across:
            [found[one]] = self.direct_slopes(value, [one], one, keep or one != across[-1])
        return [found[one] for one in numbers]

    def direct_slopes(
        self, value: Tensor, numbers: Sequence[int], held: int, keep: bool = True
    ) -> list[Tensor]:
        """The same in one backward pass, which does not go through the layers of those among them
        and of `held` that are of several layers."""
        nodes = [self.readings[one].nodes for one in numbers]
        closed = [one for one in {*numbers, held} if self.readings[one].site.several]
        for one in closed:
            self.gates[one].is_open = False
        try:
            found = iter(gradient(value, [one for some in nodes for one in some], keep=keep))
        finally:
            for one in closed:
                self.gates[one].is_open = True
        return [torch.cat([next(found) for _ in some], dim=-1) for some in nodes]


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Inside the block no parameter requires a gradient."""
    live = [one for module in modules for one in module.parameters() if one.requires_grad]
    for one in live:
        one.requires_grad_(False)
    try:
        yield
    finally:
        for one in live:
            one.requires_grad_(True)


def graph_pass(
    lm: "LanguageModel", encoding: "Encoding", sites: Sequence[SaeSite], position: int
) -> Graph:
    """One pass over a single text [1, n] that keeps what gradients need. The sites are in the
    order of the model. Raises MiCrowError for a site that the pass does not reach."""
    read: list[dict[int, Tensor]] = [{} for _ in sites]
    written: list[dict[int, Tensor]] = [{} for _ in sites]
    gates = tuple(Gate() for _ in sites)

    def keep(number: int, layer: int, value: Tensor) -> None:
        read[number][layer] = value[0].clone()

    def node(number: int, layer: int, value: Tensor) -> Tensor:
        if not value.requires_grad:
            y = value[0].detach().clone().requires_grad_()
        else:
            y = gates[number].through(value[0]) if sites[number].several else value[0]
        written[number][layer] = y
        # A latent of several layers reads what the model has there, not what the latents write.
        if sites[number].layers[layer][0] == sites[number].layers[layer][1]:
            read[number][layer] = value[0].clone() if sites[number].several else y
        return y[None].clone()  # some blocks add to it in place

    def inputs(site: SaeSite, layers: Mapping[int, Tensor]) -> list[Tensor]:
        found = _in_order(layers)
        if site.other is None:
            return found
        both = site.other.beside(found, encoding.input_ids, encoding.attention_mask)
        return [one.clone() if one.is_inference() else one for one in both]

    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(frozen(lm.model, *(one.sae for one in sites)))
        for number, site in enumerate(sites):
            for layer, (reads, writes) in enumerate(site.layers):
                if reads != writes:
                    stack.callback(tap(lm, reads, partial(keep, number, layer)))
                stack.callback(tap(lm, writes, partial(node, number, layer)))
        logits = _logits(lm, encoding, position)[0]
        for number, site in enumerate(sites):
            for layer, (reads, _) in enumerate(site.layers):
                if layer not in read[number] or layer not in written[number]:
                    raise MiCrowError(
                        f"layer {reads.name!r} does not run in a forward pass",
                        hint="choose an SAE of another layer",
                    )
        ordinary = ~encoding.special[0]
        readings = tuple(
            reading_of(site, inputs(site, read[number]), _in_order(written[number]), ordinary)
            for number, site in enumerate(sites)
        )
    return Graph(logits, readings, gates)


@torch.no_grad()
def edited_pass(
    lm: "LanguageModel",
    encoding: "Encoding",
    edits: "Mapping[HookPoint, Tensor]",
    target: Target,
    target_site: SaeSite | None = None,
    held: "Mapping[HookPoint, Tensor] | None" = None,
) -> Tensor:
    """The target under several edits in one batch, as in `logits_under`: [rows]."""
    if target_site is None:
        return target.of_logits(logits_under(lm, encoding, edits, target.position, held))
    with _watched(lm, target_site, target.position) as seen:
        logits_under(lm, encoding, edits, target.position, held)
    return activation_at(target_site, seen(), target)


@torch.no_grad()
def logits_under(
    lm: "LanguageModel",
    encoding: "Encoding",
    edits: "Mapping[HookPoint, Tensor]",
    position: int,
    held: "Mapping[HookPoint, Tensor] | None" = None,
) -> Tensor:
    """Logits [rows, vocabulary] at a position under several edits in one batch.

    `edits` [rows, n, d] is added to the activations at each point, or to what is `held` there
    [n, d]; the text [1, n] is the same in every row.
    """

    def added(point: "HookPoint", value: Tensor) -> Tensor:
        before = (held or {}).get(point, value)
        return (before.float() + edits[point]).to(value.dtype)

    rows = max(len(edit) for edit in edits.values())
    with ExitStack() as stack:
        text = _for_rows(lm, encoding, list(edits), rows)
        for point in edits:
            stack.callback(tap(lm, point, partial(added, point)))
        return _logits(lm, text, position)


@torch.no_grad()
def logits_changed(
    lm: "LanguageModel",
    encoding: "Encoding",
    changes: Sequence[tuple[Reading, Tensor]],
    position: int,
) -> Tensor:
    """Logits [vocabulary] at a position where each of these readings, in the order of the model,
    has its y changed by [n, n_outputs]. Layers that are held are so at what the changes before them
    make of them."""
    edits: dict[HookPoint, Tensor] = {}
    held: dict[HookPoint, Tensor] = {}
    for reading, change in changes:
        own = reading.held
        if own and edits:
            with ExitStack() as stack:
                for point in reading.site.writes:
                    stack.callback(tap(lm, point, partial(_keep_first, own, point)))
                logits_under(lm, encoding, edits, position, held)
        held |= own
        edits |= {point: part[None] for point, part in reading.at_points(change).items()}
    return logits_under(lm, encoding, edits, position, held)[0]


def _keep_first(found: "dict[HookPoint, Tensor]", point: "HookPoint", value: Tensor) -> None:
    found[point] = value[0].clone()


def gradient_under(
    lm: "LanguageModel",
    encoding: "Encoding",
    reading: Reading,
    edits: Tensor,
    target: Target,
    target_site: SaeSite | None = None,
) -> Tensor:
    """d target / d y of a reading under each of `edits` [rows, n, n_outputs], which are added: the
    same shape."""
    nodes: dict[HookPoint, Tensor] = {}
    added, held = reading.at_points(edits), reading.held

    def node(point: "HookPoint", value: Tensor) -> Tensor:
        before = held.get(point, value)
        y = (before.float() + added[point]).to(value.dtype).detach().requires_grad_()
        nodes[point] = y
        return y.clone()

    site = reading.site
    text = _for_rows(lm, encoding, site.writes, len(edits))
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        saes = [site.sae] + ([target_site.sae] if target_site is not None else [])
        stack.enter_context(frozen(lm.model, *saes))
        watched = None
        if target_site is not None:
            watched = stack.enter_context(_watched(lm, target_site, target.position))
        for point in site.writes:
            stack.callback(tap(lm, point, partial(node, point)))
        logits = _logits(lm, text, target.position)
        if target_site is None or watched is None:
            values = target.of_logits(logits)
        else:
            values = activation_at(target_site, watched(), target)
        return torch.cat(gradient(values.sum(), [nodes[one] for one in site.writes]), dim=-1)


@contextmanager
def _watched(lm: "LanguageModel", site: SaeSite, position: int) -> Iterator[Callable[[], Tensor]]:
    """Gives what a site reads at a position, [rows, n_inputs], once a pass has run; a layer before
    the first edit has one row for all."""
    seen: dict[HookPoint, Tensor] = {}

    def keep(point: "HookPoint", value: Tensor) -> None:
        seen[point] = value[:, position].clone()

    def read() -> Tensor:
        found = [seen[point] for point in site.reads]
        rows = max(len(one) for one in found)
        return torch.cat([one.expand(rows, -1) for one in found], dim=-1)

    with ExitStack() as stack:
        for point in site.reads:
            stack.callback(tap(lm, point, partial(keep, point)))
        yield read


_WIDENS: "WeakKeyDictionary[nn.Module, dict[HookPoint, bool]]" = WeakKeyDictionary()


def _for_rows(
    lm: "LanguageModel", encoding: "Encoding", points: "Sequence[HookPoint]", rows: int
) -> "Encoding":
    """The text [1, n] for a pass whose edits at `points` have several rows: one row where the first
    edit makes them several, so that the blocks before it run once."""
    known = _WIDENS.setdefault(lm.model, {})
    for point in points:
        if rows > 1 and point not in known:
            known[point] = _widens(lm, encoding, point)
    return encoding if all(known.get(point) for point in points) else _repeated(encoding, rows)


@torch.no_grad()
def _widens(lm: "LanguageModel", encoding: "Encoding", point: "HookPoint") -> bool:
    """Whether a pass that gets its rows at `point` gives what one of as many rows gives: tried with
    two edits on a few tokens, since a model may keep the number of rows that it began with."""
    from mi_crow.language_model.tokenize import Encoding

    places = torch.arange(_TRIED, device=encoding.input_ids.device) % encoding.input_ids.shape[1]
    one = Encoding(
        encoding.input_ids[:, places],
        encoding.attention_mask[:, places],
        encoding.special[:, places],
    )

    def moved(value: Tensor) -> Tensor:
        noise = torch.randn(2, *value.shape[1:], generator=torch.Generator().manual_seed(0))
        return value + (noise.to(value.device) * value.float().std()).to(value.dtype)

    remove = tap(lm, point, moved)
    try:
        plain = _logits(lm, _repeated(one, 2), _TRIED - 1).float()
        wide = _logits(lm, one, _TRIED - 1).float()
    except (RuntimeError, ValueError, IndexError, TypeError):
        return False
    finally:
        remove()
    if wide.shape != plain.shape:
        return False
    return float((wide - plain).norm()) <= _SAME * float((plain[0] - plain[1]).norm())


def activation_at(site: SaeSite, x: Tensor, target: Target) -> Tensor:
    """The activation of the target's feature for activations x [rows, d]: [rows]."""
    assert target.feature is not None
    latents = site.sae.encode_sparse(x.to(site.sae.dtype))
    return (latents.values * (latents.indices == target.feature)).sum(-1).float()


def gradient(value: Tensor, nodes: Sequence[Tensor], keep: bool = False) -> list[Tensor]:
    """d value / d node for each node; zero where the value does not depend on it."""
    if not value.requires_grad:
        return [torch.zeros_like(one) for one in nodes]
    found = torch.autograd.grad(value, list(nodes), retain_graph=keep, allow_unused=True)
    return [
        torch.zeros_like(node) if one is None else one
        for one, node in zip(found, nodes, strict=True)
    ]


def check_order(lm: "LanguageModel", sites: Sequence[SaeSite]) -> list[SaeSite]:
    """The sites in the order of the model. Raises UserError for two at one layer, and for one that
    is among the layers of another."""

    def place(point: "HookPoint") -> tuple[int, int]:
        block = lm.layers.block_of(point)
        names = lm.layers.list_layers()
        inside = names.index(point.name) if point.name in names else 0
        end = len(names) if point.name in lm.layers.blocks() else inside
        if point.kind == "input" and point.name in lm.layers.blocks():
            end = -1
        return (len(lm.layers.blocks()) if block is None else block), end

    def span(site: SaeSite) -> tuple[tuple[int, int], tuple[int, int]]:
        places = [place(point) for point in site.writes]
        return min(places), max(places)

    ordered = sorted(sites, key=span)
    for one, other in pairwise(ordered):
        if (one.several or other.several) and span(other)[0] <= span(one)[1]:
            raise UserError(
                f"the layers of SAEs {one.sae_id!r} ({one.place}) and {other.sae_id!r} "
                f"({other.place}) overlap",
                hint="give one of them, or SAEs of which one comes after the other",
            )
        if one.write.same_tensor(other.write):
            raise UserError(
                f"SAEs {one.sae_id!r} and {other.sae_id!r} are of the same layer",
                hint="give one SAE a layer",
            )
    return ordered


def _in_order(layers: Mapping[int, Tensor]) -> list[Tensor]:
    return [layers[number] for number in sorted(layers)]


def _repeated(encoding: "Encoding", rows: int) -> "Encoding":
    from mi_crow.language_model.tokenize import Encoding

    return Encoding(
        encoding.input_ids.expand(rows, -1),
        encoding.attention_mask.expand(rows, -1),
        encoding.special.expand(rows, -1),
    )


def _logits(lm: "LanguageModel", encoding: "Encoding", position: int) -> Tensor:
    """Logits [rows, vocabulary] at one position; the others are not computed where the model can
    leave them out."""
    options: dict[str, Any] = {}
    if "logits_to_keep" in inspect.signature(lm.model.forward).parameters:
        options["logits_to_keep"] = torch.tensor([position], device=lm.device)
    with lm.plain():
        logits = lm.model(**encoding.as_inputs(), use_cache=False, **options).logits
    return logits[:, 0] if options and logits.shape[1] == 1 else logits[:, position]
