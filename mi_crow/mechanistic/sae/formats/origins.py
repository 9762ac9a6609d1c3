"""The metadata of an SAE whose file names a model and hook points, and nothing else."""

from mi_crow.mechanistic.sae.hook_names import hook_name_of, module_of, point_of
from mi_crow.mechanistic.sae.metadata import SaeMetadata


def origin(
    model: str,
    hook_in: str,
    hook_out: str | None = None,
    *,
    prepend_bos: bool | None = None,
    context_size: int | None = None,
    folded: tuple[str, ...] = (),
) -> SaeMetadata:
    """`hook_in` and, for a transcoder, `hook_out` by any tool's name; '' where it is not known."""
    point = point_of(hook_in)
    other = {}
    if hook_out is not None:
        written = point_of(hook_out)
        other = {
            "hook_name_out": hook_name_of(written, hook_out),
            "target_layer": written or hook_out,
        }
    return SaeMetadata(
        model_name=model,
        hook_name=hook_name_of(point, hook_in),
        layer=module_of(hook_in),
        point=point,
        prepend_bos=prepend_bos,
        context_size=context_size,
        folded=folded,
        other=other,
    )
