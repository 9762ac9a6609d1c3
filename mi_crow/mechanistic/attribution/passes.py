"""Forward passes that explain: one with a graph from the sites on, one with several edits at once.

Model weights never require a gradient: the graph begins at the first site's activation, so that the
blocks before it cost what they cost in inference.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from mi_crow.errors import MiCrowError, UserError
from mi_crow.language_model.hook_points.tap import tap
from mi_crow.mechanistic.attribution.site import Reading, SaeSite
from mi_crow.mechanistic.attribution.target import Target

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint, LanguageModel
    from mi_crow.language_model.tokenize import Encoding

Visit = Callable[[Tensor], Tensor | None]

_TRIED = 6  # tokens of the text on which it is tried whether a pass widens
_SAME = 0.05  # of the difference between two edits, for the results of one to be the same


@dataclass(frozen=True)
class Graph:
    """A pass whose numbers can be differentiated by what is at its sites."""

    logits: Tensor  # [vocabulary] at the position that was asked for
    readings: tuple[Reading, ...]  # in the order of the sites


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
    read: dict[int, Tensor] = {}
    written: dict[int, Tensor] = {}

    def keep(number: int, value: Tensor) -> None:
        read[number] = value[0].clone()

    def node(number: int, value: Tensor) -> Tensor:
        y = value[0] if value.requires_grad else value[0].detach().clone().requires_grad_()
        written[number] = y
        if sites[number].read == sites[number].write:
            read[number] = y
        return y[None].clone()  # some blocks add to it in place

    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(frozen(lm.model, *(one.sae for one in sites)))
        for number, site in enumerate(sites):
            if site.read != site.write:
                read_it = _bound(keep, number)
                stack.callback(tap(lm, site.read, read_it))
            stack.callback(tap(lm, site.write, _bound(node, number)))
        logits = _logits(lm, encoding, position)[0]
        for number, site in enumerate(sites):
            if number not in read or number not in written:
                raise MiCrowError(
                    f"layer {site.read.name!r} does not run in a forward pass",
                    hint="choose an SAE of another layer",
                )
        ordinary = ~encoding.special[0]
        readings = tuple(
            Reading(site, read[number], written[number], ordinary)
            for number, site in enumerate(sites)
        )
    return Graph(logits, readings)


@torch.no_grad()
def edited_pass(
    lm: "LanguageModel",
    encoding: "Encoding",
    edits: "Mapping[HookPoint, Tensor]",
    target: Target,
    target_site: SaeSite | None = None,
) -> Tensor:
    """The target under several edits in one batch, as in `logits_under`: [rows]."""
    if target_site is None:
        return target.of_logits(logits_under(lm, encoding, edits, target.position))
    seen: list[Tensor] = []
    remove = tap(lm, target_site.read, lambda value: seen.append(value[:, target.position]))
    try:
        logits_under(lm, encoding, edits, target.position)
    finally:
        remove()
    return activation_at(target_site, seen[0], target)


@torch.no_grad()
def logits_under(
    lm: "LanguageModel", encoding: "Encoding", edits: "Mapping[HookPoint, Tensor]", position: int
) -> Tensor:
    """Logits [rows, vocabulary] at a position under several edits in one batch.

    `edits` [rows, n, d] is added to the activations at each point; the text [1, n] is the same in
    every row.
    """

    def added(edit: Tensor, value: Tensor) -> Tensor:
        return (value.float() + edit).to(value.dtype)

    rows = max(len(edit) for edit in edits.values())
    with ExitStack() as stack:
        text = _for_rows(lm, encoding, list(edits), rows)
        for point, edit in edits.items():
            stack.callback(tap(lm, point, _bound(added, edit)))
        return _logits(lm, text, position)


def gradient_under(
    lm: "LanguageModel",
    encoding: "Encoding",
    site: SaeSite,
    edits: Tensor,
    target: Target,
    target_site: SaeSite | None = None,
) -> Tensor:
    """d target / d y at the site under each of `edits` [rows, n, d], which are added: the same
    shape."""
    nodes: list[Tensor] = []
    seen: list[Tensor] = []

    def node(value: Tensor) -> Tensor:
        y = (value.float() + edits).to(value.dtype).detach().requires_grad_()
        nodes.append(y)
        return y.clone()

    text = _for_rows(lm, encoding, [site.write], len(edits))
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        saes = [site.sae] + ([target_site.sae] if target_site is not None else [])
        stack.enter_context(frozen(lm.model, *saes))
        stack.callback(tap(lm, site.write, node))
        if target_site is not None:
            stack.callback(
                tap(lm, target_site.read, lambda value: seen.append(value[:, target.position]))
            )
        logits = _logits(lm, text, target.position)
        if target_site is None:
            values = target.of_logits(logits)
        else:
            values = activation_at(target_site, seen[0], target)
        return gradient(values.sum(), nodes)[0]


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
    """The sites in the order of the model. Raises UserError for two at one layer."""

    def place(site: SaeSite) -> tuple[int, int]:
        block = lm.layers.block_of(site.write)
        names = lm.layers.list_layers()
        inside = names.index(site.write.name) if site.write.name in names else 0
        end = len(names) if site.write.name in lm.layers.blocks() else inside
        if site.write.kind == "input" and site.write.name in lm.layers.blocks():
            end = -1
        return (len(lm.layers.blocks()) if block is None else block), end

    ordered = sorted(sites, key=place)
    for one, other in pairwise(ordered):
        if one.write.same_tensor(other.write):
            raise UserError(
                f"SAEs {one.sae_id!r} and {other.sae_id!r} are of the same layer",
                hint="give one SAE a layer",
            )
    return ordered


def _bound(function: Callable[[Any, Tensor], Tensor | None], first: Any) -> Visit:
    return lambda value: function(first, value)


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
