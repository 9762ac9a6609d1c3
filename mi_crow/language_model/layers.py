"""A model's layers: names, hook points, widths, and hooks on them.

Works on any causal LM by structure, not by a list of architectures: the residual blocks are the
module list with as many entries as the configuration has layers.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from mi_crow.errors import NotFoundError, UserError
from mi_crow.hooks import Hook

if TYPE_CHECKING:
    from mi_crow.hooks.hook import HookType
    from mi_crow.language_model.language_model import LanguageModel

_ATTENTION = ("self_attn", "attn", "attention", "self_attention", "linear_attn", "mixer")
_MLP = ("mlp", "feed_forward", "block_sparse_moe", "ffn", "moe")
_NAMES_COMPARED = 4000  # a mixture of experts has a hundred thousand modules
_FINAL_NORM = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "final_norm", "norm_f")


@dataclass(frozen=True)
class HookPoint:
    """Where activations are read: a module's output or input."""

    name: str  # module name
    point: str  # short name; equals `name` where there is none
    kind: Literal["output", "input"]


@dataclass(frozen=True)
class RegisteredHook:
    """One hook on a model."""

    id: str
    layer: str
    hook: Hook
    remove: Callable[[], None]


class Layers:
    """The layers of one model."""

    def __init__(self, lm: "LanguageModel") -> None:
        self._lm = lm
        self._hooks: dict[str, RegisteredHook] = {}
        self._count = 0

    def list_layers(self) -> list[str]:
        """Names of all modules, in definition order."""
        return [name for name, _ in self._lm.model.named_modules() if name]

    def blocks(self) -> list[str]:
        """Names of the residual blocks, first to last."""
        return self._blocks

    def resolve(self, signature: str | int) -> HookPoint:
        """The hook point meant by a module name, a short name or a block's number.

        Short names are resid_pre.N, attn_out.N, mlp_out.N, resid_post.N; the names of
        TransformerLens (blocks.N.hook_resid_post) work too; a number N means resid_post.N, and
        a negative one counts from the last block. Raises NotFoundError naming how many layers
        there are and the three nearest.
        """
        if isinstance(signature, int) or re.fullmatch(r"-?\d+", signature):
            number = int(signature)
            signature = f"resid_post.{number + len(self._blocks) if number < 0 else number}"
        elif match := re.fullmatch(r"blocks\.(\d+)\.hook_(\w+)", signature):
            signature = f"{match[2]}.{match[1]}"
        if signature in self._by_short:
            return self._by_short[signature]
        if signature in self._short_of:
            return HookPoint(signature, self._short_of[signature], "output")
        if signature == "" or signature in self._names:
            return HookPoint(signature, signature, "output")
        raise NotFoundError(
            f"layer {signature!r} not found",
            hint=f"{len(self._blocks)} layers, e.g. {', '.join(self._nearest(signature))}",
        )

    def _nearest(self, signature: str) -> list[str]:
        """Three names: those most like a slip of the pen, then blocks as examples."""
        names = [*self._by_short, *self._names[:_NAMES_COMPARED]]
        blocks = self._blocks or self._names
        middle = [*blocks[len(blocks) // 2 :], *blocks[: len(blocks) // 2]]
        found = get_close_matches(signature, names, n=3, cutoff=0.75)
        return list(dict.fromkeys([*found, *middle]))[:3]

    def width(self, signature: str | int) -> int:
        """Size d of one activation at a hook point, read from a probe pass."""
        point = self.resolve(signature)
        if point not in self._widths:
            from mi_crow.language_model.capture_pass import run_to

            ids = torch.zeros(1, 1, dtype=torch.int64, device=self._lm.device)
            found = run_to(self._lm, [point], ids, torch.ones_like(ids))
            self._widths[point] = int(found[point].shape[-1])
        return self._widths[point]

    def describe(self) -> list[dict[str, Any]]:
        """Every hook point with a short name: module name, short name, width as `shape`."""
        rows = []
        for short, point in self._by_short.items():
            rows.append({"name": point.name, "point": short, "shape": [self.width(short)]})
        return rows

    def tree(self) -> list[dict[str, Any]]:
        """Every module in definition order: name, kind, shape of its weight, parameters, point."""
        rows = []
        for name, module in self._lm.model.named_modules():
            weight = getattr(module, "weight", None)
            shape = list(weight.shape) if isinstance(weight, Tensor) else None
            parameters = sum(p.numel() for p in module.parameters())
            point = self._short_of.get(name)
            rows.append(
                {
                    "name": name,
                    "kind": type(module).__name__,
                    "shape": shape,
                    "params": parameters,
                    "point": point,
                }
            )
        return rows

    def register_hook(
        self,
        layer_signature: str | int,
        hook: Hook,
        hook_type: "HookType | None" = None,
    ) -> str:
        """Hangs `hook` on a layer and gives its id. Raises NotFoundError for an unknown layer."""
        if not isinstance(hook, Hook):
            raise UserError(
                f"{type(hook).__name__} is not a hook", hint="derive from Detector or Controller"
            )
        point = self.resolve(layer_signature)
        kind = hook_type or ("pre_forward" if point.kind == "input" else hook.hook_type)
        self._count += 1
        hook_id = hook.id or f"hook-{self._count}"
        if hook_id in self._hooks:
            raise UserError(f"hook id {hook_id!r} is taken", hint="give another hook_id")
        module = self._lm.model.get_submodule(point.name)
        if kind == "pre_forward":
            handle = module.register_forward_pre_hook(self._before(hook), with_kwargs=True)
        else:
            handle = module.register_forward_hook(self._after(hook))
        self._hooks[hook_id] = RegisteredHook(hook_id, point.name, hook, handle.remove)
        return hook_id

    def unregister_hook(self, hook_or_id: Hook | str) -> bool:
        """Takes a hook off, named by its id or given itself; False when it is not there."""
        if isinstance(hook_or_id, Hook):
            ids = [found.id for found in self._hooks.values() if found.hook is hook_or_id]
        else:
            ids = [hook_or_id] if hook_or_id in self._hooks else []
        for hook_id in ids:
            self._hooks.pop(hook_id).remove()
        return bool(ids)

    def get_hooks(self) -> list[RegisteredHook]:
        """The hooks that are registered, oldest first."""
        return list(self._hooks.values())

    def unembedding(self) -> tuple[nn.Module | None, nn.Module]:
        """The final norm (None where the model has none) and the output embedding.

        Raises UserError for a model without an output embedding.
        """
        head = self._lm.model.get_output_embeddings()
        if head is None:
            raise UserError(f"model {self._lm.model_id!r} has no output embedding")
        # The final norm stands beside the list of blocks.
        owner = self._blocks[0].rpartition(".")[0].rpartition(".")[0] if self._blocks else ""
        base = self._lm.model.get_submodule(owner)
        norms = [getattr(base, name) for name in _FINAL_NORM if hasattr(base, name)]
        return (norms[0] if norms else None), head

    def _before(self, hook: Hook) -> Callable[..., Any]:
        def call(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return hook.pre_forward(module, args, kwargs) if self._runs(hook) else None

        return call

    def _after(self, hook: Hook) -> Callable[..., Any]:
        def call(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            return hook.forward(module, args, output) if self._runs(hook) else None

        return call

    def _runs(self, hook: Hook) -> bool:
        return hook.enabled and (self._lm.controllers_enabled or not hook.is_controller)

    @cached_property
    def _widths(self) -> dict[HookPoint, int]:
        return {}

    @cached_property
    def _names(self) -> list[str]:
        return self.list_layers()

    @cached_property
    def _blocks(self) -> list[str]:
        """The module list with attention in every entry, or else with as many entries as the
        configuration has layers; of several the one of that length, then the longest."""
        wanted = _configured_layers(self._lm.model.config)
        best: tuple[bool, int] = (False, 0)
        blocks: list[str] = []
        for name, module in self._lm.model.named_modules():
            if not isinstance(module, nn.ModuleList) or not len(module):
                continue
            fits = len(module) == wanted
            if not fits and not all(_child(block, _ATTENTION) for block in module):
                continue
            if (fits, len(module)) > best:
                best = (fits, len(module))
                blocks = [f"{name}.{number}" for number in range(len(module))]
        return blocks

    @cached_property
    def _by_short(self) -> dict[str, HookPoint]:
        """Short names to hook points, block by block."""
        points: dict[str, HookPoint] = {}
        for number, block in enumerate(self._blocks):
            module = self._lm.model.get_submodule(block)
            points[f"resid_pre.{number}"] = HookPoint(block, f"resid_pre.{number}", "input")
            for short, names in (("attn_out", _ATTENTION), ("mlp_out", _MLP)):
                child = _child(module, names)
                if child is not None:
                    point = f"{short}.{number}"
                    points[point] = HookPoint(f"{block}.{child}", point, "output")
            points[f"resid_post.{number}"] = HookPoint(block, f"resid_post.{number}", "output")
        return points

    @cached_property
    def _short_of(self) -> dict[str, str]:
        return {
            point.name: short for short, point in self._by_short.items() if point.kind == "output"
        }


def _child(module: nn.Module, names: tuple[str, ...]) -> str | None:
    """The first of `names` that is a child of `module`."""
    return next((name for name in names if hasattr(module, name)), None)


def _configured_layers(config: Any) -> int | None:
    """The number of text layers that a model's configuration names."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return getattr(text, "num_hidden_layers", None)
