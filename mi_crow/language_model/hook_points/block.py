"""The hook points of one block, by name, from its measurements."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mi_crow.hooks.tensors import first_tensor, input_tensor, replace_input
from mi_crow.language_model.hook_points.measure import Measured, Sum, Term, equal, measure
from mi_crow.language_model.hook_points.point import Gain, HookPoint
from mi_crow.language_model.hook_points.record import BlockRecord, Call
from mi_crow.language_model.placement.devices import weight_of

SUBLAYERS = ("attn", "mlp")
NORMALISED = {"attn": "ln1", "mlp": "ln2"}  # TransformerLens's names of the norms before them
KINDS = ("attn_in", "z", "attn_raw", "attn_out", "resid_mid", "mlp_in", "mlp_raw", "mlp_out")

_USUALLY = {
    "z": "no projection has the attention's output",
    "attn_raw": "no single module does the attention there",
    "mlp_raw": "no single module does the MLP's work there",
    "attn_in": "the block has no module for attention",
    "mlp_in": "the block has no module for the MLP",
}

# Only for blocks whose stream cannot be measured.
_ATTENTION = ("self_attn", "attn", "attention", "self_attention", "linear_attn", "mixer")
_MLP = ("mlp", "feed_forward", "block_sparse_moe", "ffn", "moe")


@dataclass
class BlockPoints:
    """A block's hook points by short name (or TransformerLens name, if there is no short one), and
    why it lacks the others."""

    points: dict[str, HookPoint] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, point: HookPoint | None) -> None:
        if point is not None:
            self.points.setdefault(point.point, point)

    def lack(self, name: str, reason: str) -> None:
        if name not in self.points:
            self.missing.setdefault(name, reason)


def names_of(number: int) -> list[str]:
    """The names of all points that a block may have between its ends."""
    names = [f"{kind}.{number}" for kind in KINDS]
    return names + [f"blocks.{number}.{ln}.hook_normalized" for ln in NORMALISED.values()]


def block_points(record: BlockRecord, number: int, known: tuple[float, ...]) -> BlockPoints:
    """The hook points inside the block `number`."""
    found = BlockPoints()
    if record.pre is None or record.post is None or record.pre.shape != record.post.shape:
        _without_stream(found, record, number)
    else:
        _with_stream(found, record, number, measure(record, known))
    for name in names_of(number):
        found.lack(
            name, _USUALLY.get(name.partition(".")[0], "there is no norm before the sub-layer")
        )
    return found


def _with_stream(found: BlockPoints, record: BlockRecord, number: int, measured: Measured) -> None:
    sums = _by_sublayer(record, measured)
    for name, total in sums.items():
        if total is not None:
            found.add(_point_of(record, f"{name}_out.{number}", total.terms))
        workers = _workers(record, name, total, measured)
        if workers:
            _add_inside(found, record, number, name, total, workers)
    attention = found.points.get(f"attn_out.{number}")
    if measured.mid is not None and attention is not None:
        stream = HookPoint(record.name, f"resid_pre.{number}", "input")
        plus = (*attention.plus, stream)
        scale, point = attention.scale, f"resid_mid.{number}"
        found.add(HookPoint(attention.name, point, "output", scale, plus=plus))
    _say_what_is_missing(found, number, measured, sums)


def _by_sublayer(record: BlockRecord, measured: Measured) -> dict[str, Sum | None]:
    """The sum of each sub-layer. Attention is what mixes tokens: in parallel blocks both sub-layers
    are run again on the tokens in reverse to tell them apart."""
    if measured.whole is None:
        return {"attn": measured.first, "mlp": measured.second}
    terms = measured.whole.terms
    if len(terms) == 1:
        mixes = mixes_tokens(_worker_of(record, terms[0].call), record)
        return {"attn" if mixes else "mlp": measured.whole}
    mixing = [mixes_tokens(_worker_of(record, term.call), record) for term in terms]
    if all(mixing):
        return {"attn": measured.whole}
    if not any(mixing):
        return {"mlp": measured.whole}
    attention = terms[mixing.index(True)]
    mlp = terms[mixing.index(False)]
    error = measured.whole.error
    return {"attn": Sum((attention,), error), "mlp": Sum((mlp,), error)}


def _point_of(record: BlockRecord, point: str, terms: tuple[Term, ...]) -> HookPoint:
    """The sum as a hook point: changed at its last term, when the others are known."""
    *before, last = terms
    plus = tuple(
        HookPoint(_full(record, term.call), _full(record, term.call), "output", term.scale)
        for term in before
    )
    return HookPoint(_full(record, last.call), point, "output", last.scale, plus=plus)


def _workers(record: BlockRecord, name: str, total: Sum | None, measured: Measured) -> list[Call]:
    """The modules that do a sub-layer's work, in execution order."""
    roots = [call for call in record.roots() if call.has_matrices and call.ended >= 0]
    nested = [term.call for term in total.terms if _is_nested(term.call)] if total else []
    if nested:
        return nested
    if measured.mid is not None:  # one sub-layer after the other
        after = name == "mlp"
        return [call for call in roots if (call.begun >= measured.mid.begun) == after]
    if total is None:
        return []
    ends = [_root_call(record, term.call) for term in total.terms]
    return [
        call
        for call in roots
        # The module itself, or what feeds the norm after it.
        if call in ends or any(not end.has_matrices and equal(end.x, call.y) for end in ends)
    ]


def _is_nested(call: Call) -> bool:
    """Whether it is a sub-module with children inside a child of the block."""
    return call.depth > 0 and next(call.module.children(), None) is not None


def _add_inside(
    found: BlockPoints,
    record: BlockRecord,
    number: int,
    name: str,
    total: Sum | None,
    workers: list[Call],
) -> None:
    """The sub-module's own output, what it reads before and after its norm, and what its output
    projection reads."""
    first, single = workers[0], total is None or len(total.terms) == 1
    raw = _raw(workers, total.terms[-1].call if total else None) if single else None
    if raw is not None:
        found.add(HookPoint(_full(record, raw), f"{name}_raw.{number}", "output"))
    norm = _norm_before(record, first)
    if norm is not None and sum(equal(call.x, first.x) for call in workers) > 1:
        # An input of several modules is changed at its source.
        found.add(HookPoint(_full(record, norm), f"{name}_in.{number}", "output"))
    else:
        found.add(HookPoint(_full(record, first), f"{name}_in.{number}", "input"))
    if norm is not None and (gain := _gain_of(norm)) is not None:
        point = f"blocks.{number}.{NORMALISED[name]}.hook_normalized"
        found.add(HookPoint(_full(record, norm), point, "output", gain=gain))
    if name == "attn" and raw is not None:
        projection = _projection(record, raw, total.terms[-1].call if total else raw)
        if projection is not None:
            found.add(HookPoint(_full(record, projection), f"z.{number}", "input"))


def _raw(workers: list[Call], last: Call | None) -> Call | None:
    """The sub-module whose output becomes the contribution: the contribution's own, or the one
    that feeds the norm after it."""
    if last is None:
        return workers[-1]
    own = [call for call in workers if call.name in (last.name, last.root)]
    if own:
        return own[0]
    fed = [call for call in workers if equal(call.y, last.x)]
    return fed[-1] if fed else (workers[-1] if len(workers) == 1 else None)


def _root_call(record: BlockRecord, call: Call) -> Call:
    return next(one for one in record.calls if one.name == call.root)


def _worker_of(record: BlockRecord, call: Call) -> Call:
    """The block's child that a contribution comes from; for a norm the child that feeds it."""
    root = _root_call(record, call)
    if root.has_matrices:
        return root
    fed = [one for one in record.roots() if one.has_matrices and equal(one.y, root.x)]
    return fed[-1] if fed else root


def _norm_before(record: BlockRecord, reader: Call) -> Call | None:
    """The norm whose output `reader` reads."""
    for call in record.calls:
        before = call.begun < reader.begun and call.depth <= reader.depth
        feeds = before and not call.has_matrices and equal(call.y, reader.x)
        if feeds and not equal(call.x, call.y):  # else a dropout
            return call
    return None


def _gain_of(norm: Call) -> Gain | None:
    """How a norm multiplies: by w, by 1 + w, or not at all; None if by none of these.

    Without its gain a norm's output has its input's direction (for a LayerNorm the centred one).
    """
    if norm.x is None or norm.y is None:
        return None
    weight, bias = weight_of(norm.module, "weight"), weight_of(norm.module, "bias")
    if weight is None:
        return "" if _same_direction(norm.x, norm.y) else None
    if weight.ndim != 1 or weight.shape[0] != norm.y.shape[1]:
        return None
    weight = weight.detach().float().cpu()
    shift = bias.detach().float().cpu() if isinstance(bias, Tensor) else torch.zeros(())
    options: tuple[tuple[Gain, Tensor], ...] = (("w", weight), ("1+w", 1 + weight))
    for gain, factor in options:
        if bool((factor != 0).all()) and _same_direction(norm.x, (norm.y - shift) / factor):
            return gain
    return None


def _same_direction(x: Tensor, normalised: Tensor) -> bool:
    centred = x - x.mean(dim=1, keepdim=True)
    alike = [
        float(nn.functional.cosine_similarity(one, normalised, dim=1).median())
        for one in (x, centred)
    ]
    return max(alike) > 0.9995


def _projection(record: BlockRecord, raw: Call, last: Call) -> Call | None:
    """The output projection of attention: the last matrix in it, with the same output."""
    if last.depth and last.root == raw.name and last.has_matrices and not _is_nested(last):
        return last  # attention adds the residual itself; this is what it adds
    inner = [
        call
        for call in record.calls
        if call.name.startswith(f"{raw.name}.") and call.has_parameters and call.ended >= 0
    ]
    fitting = [call for call in inner if call.has_matrices and equal(call.y, raw.y)]
    # Of several with the same output the innermost is the projection itself.
    return max(fitting, key=lambda call: (call.depth, call.begun), default=None)


def mixes_tokens(call: Call, record: BlockRecord) -> bool:
    """Whether a module's output at a token depends on other tokens: if not, running it with the
    tokens in reverse gives the same rows in reverse."""
    try:
        x = input_tensor(call.args, call.kwargs)
        if x.ndim != 3:
            return False
        args, kwargs = replace_input(call.args, call.kwargs, x.flip(1))
        again = first_tensor(call.module.forward(*args, **kwargs))
        plain = first_tensor(call.module.forward(*call.args, **call.kwargs))
    except Exception:  # a module that needs more than its inputs: its name has to do
        return any(call.root.startswith(name) for name in _ATTENTION)
    if again.ndim != 3:
        return False
    if not bool(plain.any()):  # its output is all zero: its name has to do
        return any(call.root.startswith(name) for name in _ATTENTION)
    difference = (again.flip(1) - plain).float().abs().max()
    return bool(difference > 1e-3 * plain.float().abs().max())


def _without_stream(found: BlockPoints, record: BlockRecord, number: int) -> None:
    """A block without one row per token: its sub-modules by their names."""
    shape = list(record.pre_shape)
    why = f"its stream has the shape {shape}, not one row per token"
    if len(shape) == 4:
        why = f"it carries {shape[0]} streams at once"
    for name, known in (("attn", _ATTENTION), ("mlp", _MLP)):
        call = next((one for one in record.roots() if one.name in known), None)
        if call is not None and call.y is not None:
            found.add(HookPoint(_full(record, call), f"{name}_raw.{number}", "output"))
            if call.x is not None:
                found.add(HookPoint(_full(record, call), f"{name}_in.{number}", "input"))
            if name == "attn" and (projection := _projection(record, call, call)) is not None:
                found.add(HookPoint(_full(record, projection), f"z.{number}", "input"))
    for name in names_of(number):
        found.lack(name, why)


def _say_what_is_missing(
    found: BlockPoints, number: int, measured: Measured, sums: dict[str, Sum | None]
) -> None:
    if measured.whole is not None:
        single = len(sums) == 1
        reason = "the block has only one sub-layer" if single else "its sub-layers run in parallel"
        found.lack(f"resid_mid.{number}", f"{reason}: there is no stream between sub-layers")
        for name in SUBLAYERS:
            if name not in sums:
                said = "attention" if name == "attn" else "an MLP"
                for kind in (f"{name}_out", f"{name}_raw", f"{name}_in"):
                    found.lack(f"{kind}.{number}", f"the block's only sub-layer is not {said}")
                found.lack(
                    f"blocks.{number}.{NORMALISED[name]}.hook_normalized",
                    f"the block's only sub-layer is not {said}",
                )
        return
    for name in SUBLAYERS:
        if sums.get(name) is None:
            found.lack(
                f"{name}_out.{number}",
                "no module's output in the block is what it adds to the residual stream",
            )
    found.lack(f"resid_mid.{number}", "what attention adds to the stream is not known")


def _full(record: BlockRecord, call: Call) -> str:
    return f"{record.name}.{call.name}"
