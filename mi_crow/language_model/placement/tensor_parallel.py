"""A model whose layers are split over several processes, by the plan that transformers has for it.

Every process runs the same texts: the products of attention and MLP are divided, and summed before
they go back into the residual stream, which is whole in each process.
"""

from collections.abc import Sequence
from typing import Any

import torch

from mi_crow.errors import UserError
from mi_crow.language_model.base import CausalModel
from mi_crow.language_model.capture_pass import run_to
from mi_crow.language_model.config import QUANTIZED, ModelSpec
from mi_crow.language_model.hook_points.point import HookPoint
from mi_crow.store.settings import SPREAD

_SHARED = "leave out --tensor-parallel: --nproc then shares the documents"
_SAME = 1e-3  # of sums over activations, in processes that have the same ones
_TRIED = 8  # tokens


def split_options(
    spec: ModelSpec, config: Any, device: torch.device, world: int, gguf: bool
) -> dict[str, Any]:
    """What `from_pretrained` is told so that each of `world` processes loads its part. Raises
    UserError for a model that cannot be split."""
    what = f"model {spec.model!r} cannot be split over {world} processes"
    if gguf or spec.dtype in QUANTIZED or spec.device == SPREAD:
        quantized = "quantized" if spec.dtype in QUANTIZED else "spread over devices"
        how = "a GGUF file" if gguf else quantized
        raise UserError(f"{what}: it is {how}", hint=_SHARED)
    accelerator = torch.accelerator.current_accelerator()
    wanted = "cpu" if accelerator is None or accelerator.type == "mps" else accelerator.type
    if device.type != wanted:
        raise UserError(f"{what} on {device.type}", hint=f"use --device {wanted}")
    text = config.get_text_config()
    if not getattr(text, "base_model_tp_plan", None):
        raise UserError(
            f"{what}: transformers has no plan for {text.model_type}",
            hint=f"{_SHARED}; --device-map auto spreads the layers over GPUs",
        )
    heads = getattr(text, "num_attention_heads", world)
    if heads % world:
        fitting = [str(n) for n in range(2, heads + 1) if heads % n == 0]
        raise UserError(
            f"{what}: it has {heads} attention heads", hint=f"use --nproc {', '.join(fitting)}"
        )
    from transformers.distributed.configuration_utils import DistributedConfig

    return {"distributed_config": DistributedConfig(tp_size=world)}


@torch.inference_mode()
def check_whole(lm: CausalModel, points: Sequence[HookPoint]) -> None:
    """Raises UserError, in all processes, for a hook point of which each process has only a part.
    All call it."""
    import torch.distributed as dist

    ids = torch.arange(_TRIED, device=lm.device)[None] % max(lm.embedding_rows or _TRIED, 1)
    found = run_to(lm, points, ids)
    own = torch.tensor(
        [[float(found[one].double().sum()), float(found[one].double().norm())] for one in points],
        dtype=torch.float64,
    )
    every = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(every, own)
    scale = torch.stack(every).abs().amax(dim=(0, 2)).clamp_min(1e-30)
    apart = (torch.stack(every) - every[0]).abs().amax(dim=(0, 2)) > _SAME * scale
    for point, differs in zip(points, apart.tolist(), strict=True):
        if differs:
            raise UserError(
                f"layer {point.point!r} is split among the processes",
                hint="capture what is whole: resid_post.N, attn_out.N or mlp_out.N",
            )
