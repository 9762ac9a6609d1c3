"""Which modules are a model's residual blocks, and whether they read the embedding directly."""

from typing import Any

import torch
from torch import Tensor, nn

from mi_crow.hooks.tensors import first_tensor, input_tensor
from mi_crow.language_model.context import HookedModel
from mi_crow.language_model.hook_points.probe import StopPass, probe_ids, run_probe

# For models whose configuration does not say how many layers they have.
_ATTENTION = ("self_attn", "attn", "attention", "self_attention", "linear_attn", "mixer")


def find_blocks(lm: HookedModel) -> list[str]:
    """Names of the residual blocks: the module list with as many entries as the configuration has
    text layers, or else with attention in every entry.

    Of several lists those of that length are preferred, then the longest; a vision tower's blocks
    are left out, since they do not run on text.
    """
    wanted = _configured_layers(lm.model.config)
    lists: dict[str, tuple[bool, int]] = {}
    for name, module in lm.model.named_modules():
        if not isinstance(module, nn.ModuleList) or not len(module):
            continue
        if any(name.startswith(f"{outer}.") for outer in lists):
            continue  # experts, or another list inside a block
        fits = len(module) == wanted
        if fits or all(_has_attention(block) for block in module):
            lists[name] = fits, len(module)
    if len(lists) > 1:
        ran = _running(lm, list(lists))
        lists = {name: rank for name, rank in lists.items() if name in ran} or lists
    if not lists:
        return []
    best = max(lists, key=lambda name: lists[name])
    return [f"{best}.{number}" for number in range(lists[best][1])]


def embeds_directly(lm: HookedModel, first_block: str) -> bool:
    """Whether the first block reads the token embedding, possibly scaled."""
    embedding = lm.model.get_input_embeddings()
    seen: list[Tensor] = []

    def after(_: Any, __: Any, output: Any) -> None:
        seen.append(_host(first_tensor(output)))

    def before(_: Any, args: Any, kwargs: Any) -> None:
        seen.append(_host(input_tensor(args, kwargs)))
        raise StopPass

    block = lm.model.get_submodule(first_block)
    handles = [
        embedding.register_forward_hook(after),
        block.register_forward_pre_hook(before, with_kwargs=True),
    ]
    try:
        run_probe(lm, probe_ids(lm))
    finally:
        for handle in handles:
            handle.remove()
    if len(seen) != 2 or seen[0].shape != seen[1].shape:
        return False
    cosine = nn.functional.cosine_similarity(seen[0], seen[1], dim=-1)
    return bool(cosine.min() > 0.9999)


def _running(lm: HookedModel, lists: list[str]) -> set[str]:
    """The lists whose first module runs on text."""
    ran: set[str] = set()
    handles = [
        lm.model.get_submodule(f"{name}.0").register_forward_pre_hook(
            lambda *_, name=name: ran.add(name)
        )
        for name in lists
    ]
    try:
        run_probe(lm, probe_ids(lm))
    except Exception:  # whoever needs the model to run reports this
        return set(lists)
    finally:
        for handle in handles:
            handle.remove()
    return ran


def _has_attention(block: nn.Module) -> bool:
    return any(getattr(block, name, None) is not None for name in _ATTENTION)


def _configured_layers(config: Any) -> int | None:
    """The number of text layers that a model's configuration names."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return getattr(text, "num_hidden_layers", None)


def _host(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True)
