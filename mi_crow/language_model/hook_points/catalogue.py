"""The hook points of one model: which there are, their names and widths."""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mi_crow.errors import LayerNotFoundError, MiCrowError, NotFoundError, UserError
from mi_crow.language_model.capture_pass import run_raw
from mi_crow.language_model.context import HookedModel
from mi_crow.language_model.hook_points.block import BlockPoints, block_points, names_of
from mi_crow.language_model.hook_points.names import EMBEDDING, SHORT, number_of, short_name
from mi_crow.language_model.hook_points.point import HookPoint
from mi_crow.language_model.hook_points.probe import another_id, probe_ids, unnoticed
from mi_crow.language_model.hook_points.record import BlockRecord, record_blocks
from mi_crow.language_model.hook_points.rows import Layout, proved_layout, to_rows
from mi_crow.language_model.hook_points.stack import embeds_directly, find_blocks

_NAMES_COMPARED = 4000  # a mixture of experts has a hundred thousand modules
_IN_BLOCKS = re.compile(r"(?:\w+\.)*(?:layers|h|blocks|block)\.(\d+)((?:\.\w+)*)")


class HookPoints:
    """Names, widths and layouts of a model's hook points; blocks are measured when first asked."""

    def __init__(self, lm: HookedModel) -> None:
        self._lm = lm
        self.resting = False  # during a probe: no hook runs
        self._widths: dict[HookPoint, int] = {}
        self._layouts: dict[tuple[str, str], Layout] = {}
        self._measured: dict[int, BlockPoints] = {}

    def list_layers(self) -> list[str]:
        """Names of all modules, in definition order."""
        return [name for name, _ in self._lm.model.named_modules() if name]

    def blocks(self) -> list[str]:
        """Names of the residual blocks, first to last."""
        return self._blocks

    def resolve(self, signature: "str | int | HookPoint") -> HookPoint:
        """The hook point meant by a module name, a short name or a block's number.

        A module's name means its output, `<module>.input` its input. Short names are
        resid_pre.N, resid_mid.N, resid_post.N (the residual stream), attn_out.N and mlp_out.N (what
        is added to it), attn_raw.N and mlp_raw.N (the sub-modules' own outputs), attn_in.N and
        mlp_in.N (what they read, after their norms), z.N (the input of attention's output
        projection); the names of TransformerLens (blocks.N.hook_resid_post) work too; a number N
        means resid_post.N, and a negative one counts from the last block. Raises NotFoundError
        naming how many layers there are and the three nearest, UserError saying why a block has no
        such point.
        """
        if isinstance(signature, HookPoint):
            return signature
        if isinstance(signature, int) or re.fullmatch(r"-?\d+", signature):
            number = int(signature)
            signature = f"resid_post.{number + len(self._blocks) if number < 0 else number}"
        if signature == EMBEDDING:
            return self._embedding()
        found = self._short(short_name(signature)) or self._module(signature)
        match = _IN_BLOCKS.fullmatch(signature)
        if found is None and match is not None and int(match[1]) < len(self._blocks):
            # The same block by another prefix: of the model without its head, or of a wrapper.
            found = self._module(self._blocks[int(match[1])] + match[2])
        if found is not None:
            return found
        raise LayerNotFoundError(
            f"layer {signature!r} not found",
            hint=f"{len(self._blocks)} layers, e.g. {', '.join(self._nearest(signature))}",
        )

    def stored(self, layer: str, point: str) -> HookPoint:
        """The hook point that a run or an SAE records as module name and short name.

        The module is what was captured, whatever its short name meant then. Raises as `resolve`.
        """
        if not layer or point.startswith("resid_pre."):
            return self.resolve(point or layer)
        try:
            found = self.resolve(layer)
        except NotFoundError:
            if not point:
                raise
            return self.resolve(point)
        if point and point != found.point:
            try:
                meant = self.resolve(point)
            except MiCrowError:
                return found
            return meant if meant.same_tensor(found) else found
        return found

    def _short(self, name: str) -> HookPoint | None:
        """The hook point of a short name; None if the model has no such block. Raises UserError if
        the block has no such point."""
        number = number_of(name) if name else None
        if number is None or number >= len(self._blocks):
            return None
        block = self._blocks[number]
        if name == f"resid_pre.{number}":
            return self._unshared(HookPoint(block, name, "input"))
        if name == f"resid_post.{number}":
            return self._unshared(HookPoint(block, name, "output"))
        inside = self._inside(number)
        if name in inside.points:
            return self._unshared(inside.points[name])
        raw = name.replace("_out.", "_raw.")
        other = raw if raw != name and raw in inside.points else f"resid_post.{number}"
        said = "is the sub-module's own output" if other == raw else "is the stream after the block"
        raise UserError(
            f"{name!r} of {self._lm.model_id!r} is not available: {inside.missing.get(name, '')}",
            hint=f"{other} {said}",
        )

    def _unshared(self, point: HookPoint) -> HookPoint:
        """The point; raises UserError if several blocks share its module: a hook could not tell
        their values apart."""
        for one in (point, *point.plus):
            blocks = self._users.get(id(self._lm.model.get_submodule(one.name)), [])
            if len(blocks) > 1:
                raise UserError(
                    f"{point.point!r} of {self._lm.model_id!r} is not available: {one.name} is one "
                    f"module that the blocks {', '.join(map(str, blocks))} share",
                    hint="choose a point whose module only one block has",
                )
        return point

    @cached_property
    def _users(self) -> dict[int, list[int]]:
        """The blocks that each module belongs to, by the module's identity."""
        users: dict[int, list[int]] = {}
        for number, block in enumerate(self._blocks):
            for module in self._lm.model.get_submodule(block).modules():
                users.setdefault(id(module), []).append(number)
        return users

    def _module(self, name: str) -> HookPoint | None:
        """A module's output, or its input for `<module>.input`."""
        if name == "" or name in self._known_names:
            return self._named(name, "output")
        owner, _, end = name.rpartition(".")
        if end == "output" and (owner in self._known_names):
            return self._named(owner, "output")
        if end == "input" and owner in self._known_names:
            return self._named(owner, "input")
        return None

    def _named(self, module: str, kind: str) -> HookPoint:
        """A module's tensor under its short name, if it has one."""
        plain = HookPoint(module, module if kind == "output" else f"{module}.input", "output")
        if kind == "input":
            plain = HookPoint(module, plain.point, "input")
        for number, block in enumerate(self._blocks):
            if module == block:
                kinds = {"output": f"resid_post.{number}", "input": f"resid_pre.{number}"}
                return HookPoint(module, kinds[kind], plain.kind)
            if module.startswith(f"{block}."):
                same = [one for one in self._points_of(number) if one.same_tensor(plain)]
                return same[0] if same else plain
        return plain

    def _points_of(self, number: int) -> list[HookPoint]:
        """A block's inner points; `_raw` ones, whose names say least, last."""
        points = self._inside(number).points
        return sorted(points.values(), key=lambda one: "_raw." in one.point)

    def _embedding(self) -> HookPoint:
        """The token embedding's output: the first block's input, unless positions are added in
        between."""
        if self._blocks and embeds_directly(self._lm, self._blocks[0]):
            return self.resolve("resid_pre.0")
        embedding = self._lm.model.get_input_embeddings()
        for name, module in self._lm.model.named_modules():
            if module is embedding:
                return HookPoint(name, name, "output")
        raise NotFoundError("the model has no token embedding", hint="take resid_pre.0")

    def _inside(self, number: int) -> BlockPoints:
        """The points of block `number` between its ends."""
        if number not in self._measured:
            self._measure([number])
        return self._measured[number]

    def _measure(self, numbers: list[int]) -> None:
        """Measures blocks in one probe pass; records why a block cannot be measured."""
        names = {self._blocks[number]: number for number in numbers}
        known = _numbers_of(self._lm.model.config)

        def visit(record: BlockRecord) -> None:
            number = names[record.name]
            try:
                self._measured[number] = block_points(record, number, known)
            except Exception as error:  # an unusual block still has its ends
                self._measured[number] = _unmeasured(number, f"measuring failed ({error})")
            self._note_widths(record, number)

        try:
            record_blocks(self._lm, list(names), visit)
        except Exception as error:
            why = f"a pass of a few tokens failed ({type(error).__name__}: {error})"
        else:
            why = "the block does not run in a forward pass"
        for number in numbers:
            self._measured.setdefault(number, _unmeasured(number, why))

    def _note_widths(self, record: BlockRecord, number: int) -> None:
        """Keeps the widths of the record's tensors [batch, length, d]."""
        inner = self._measured[number].points.values()
        ends = [
            (HookPoint(record.name, f"resid_pre.{number}", "input"), record.pre_shape),
            (HookPoint(record.name, f"resid_post.{number}", "output"), record.post_shape),
        ]
        found = [(point, shape[2]) for point, shape in ends if len(shape) == 3]
        for point in inner:
            inside = point.name.removeprefix(f"{record.name}.")
            width = record.width(inside, point.kind == "input")
            if width is not None:
                found.append((point, width))
        for point, width in found:
            self._widths[point] = width
            self._layouts[point.name, point.kind] = "rows"

    def _nearest(self, signature: str) -> list[str]:
        """Three names: those most similar, for typing errors, then blocks as examples."""
        short = [f"{kind}.{number}" for number in range(len(self._blocks)) for kind in SHORT]
        names = [*short, *self._names[:_NAMES_COMPARED]]
        blocks = self._blocks or self._names
        middle = [*blocks[len(blocks) // 2 :], *blocks[: len(blocks) // 2]]
        found = get_close_matches(signature, names, n=3, cutoff=0.75)
        return list(dict.fromkeys([*found, *middle]))[:3]

    def width(self, signature: "str | int | HookPoint") -> int:
        """Size d of one activation at a hook point, read from a probe pass.

        Raises UserError for a point that does not give one row per token, MiCrowError for one that
        the pass never reaches.
        """
        point = self.resolve(signature)
        if point not in self._widths:
            self._probe(point)
        return self._widths[point]

    def known_layout(self, point: HookPoint) -> Layout | None:
        """The layout of the point's tensor; None before `width` has found it."""
        return self._layouts.get((point.name, point.kind))

    def _probe(self, point: HookPoint) -> None:
        ids = probe_ids(self._lm)
        shapes: list[torch.Size] = []

        def read(tokens: Tensor) -> Tensor:
            found = run_raw(self._lm, point, tokens)
            shapes.append(found.shape)
            return found

        with unnoticed(self._lm):
            layout = proved_layout(read, ids, another_id(self._lm, ids))
        if layout is None:
            raise self._no_rows(point, shapes[0], ids.shape)
        self._layouts[point.name, point.kind] = layout
        self._widths[point] = to_rows(torch.empty(shapes[0]), layout, *ids.shape).shape[-1]

    def block_of(self, point: HookPoint) -> int | None:
        """The number of the block that a hook point is in; None outside the blocks."""
        for number, block in enumerate(self._blocks):
            if f"{point.name}.".startswith(f"{block}."):
                return number
        return None

    def _no_rows(self, point: HookPoint, shape: torch.Size, ids: torch.Size) -> UserError:
        """The error for a shape without one row per token, naming a point that works."""
        length = ids[1]
        number = self.block_of(point)
        works = "choose a residual block or one of its sub-modules"
        if number is not None:
            inner = [one.point for one in self._points_of(number) if one.plain]
            good = [one for one in inner if one.startswith(("attn", "mlp"))] or inner
            works = f"choose {' or '.join(good)}" if good else works
        if len(shape) == 4 and tuple(shape[1:3]) == tuple(ids):
            return UserError(
                f"{point.point!r} carries {shape[0]} streams at once ([{shape[0]}, batch, length, "
                f"{shape[3]}]), not one row per token",
                hint=works,
            )
        return UserError(
            f"{point.point!r} gives {list(shape)} for {ids[0]} texts of {length} tokens, not one "
            "row per token",
            hint=works,
        )

    def describe(self) -> list[dict[str, Any]]:
        """Every hook point of the model with a short name: module name, short name, width as
        `shape`."""
        return [row for row in self.survey() if "reason" not in row]

    def survey(self) -> list[dict[str, Any]]:
        """The same, and the points that the model lacks with `shape` None and the `reason`."""
        missing = [n for n in range(len(self._blocks)) if n not in self._measured]
        if missing:
            self._measure(missing)
        return [row for number in range(len(self._blocks)) for row in self._rows(number)]

    def _rows(self, number: int) -> Iterator[dict[str, Any]]:
        inner = self._inside(number)
        for name in (f"resid_pre.{number}", *names_of(number), f"resid_post.{number}"):
            reason = inner.missing.get(name, "")
            if not reason:
                try:
                    point = self.resolve(name)
                    yield {"name": point.name, "point": name, "shape": [self.width(point)]}
                    continue
                except MiCrowError as error:
                    reason = str(error)
            yield {"name": "", "point": name, "shape": None, "reason": reason}

    def _points_of_outputs(self) -> dict[str, str]:
        """Short names of module outputs, by module name."""
        missing = [n for n in range(len(self._blocks)) if n not in self._measured]
        if missing:
            self._measure(missing)
        found: dict[str, str] = {}
        for number, block in enumerate(self._blocks):
            found[block] = f"resid_post.{number}"
            for point in self._points_of(number):
                if point.kind == "output" and not point.gain and not point.plus:
                    found.setdefault(point.name, point.point)
        return found

    @cached_property
    def _names(self) -> list[str]:
        return self.list_layers()

    @cached_property
    def _known_names(self) -> set[str]:
        return set(self._names)

    @cached_property
    def _blocks(self) -> list[str]:
        return find_blocks(self._lm)


def _unmeasured(number: int, why: str) -> BlockPoints:
    found = BlockPoints()
    for name in names_of(number):
        found.lack(name, why)
    return found


def _numbers_of(config: Any) -> tuple[float, ...]:
    """The numbers of a configuration that may be multipliers."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    values = vars(text).values()
    return tuple(sorted({float(value) for value in values if isinstance(value, float)}))
