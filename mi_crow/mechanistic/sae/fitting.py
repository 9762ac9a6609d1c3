"""Whether an SAE fits a run, a layer or a model, in one sentence for everyone who asks. Torch-free.

Asked before training, indexing, evaluating, steering and importing.
"""

from typing import ClassVar, Protocol

from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.sae.metadata import SaeMetadata
from mi_crow.progress import Progress
from mi_crow.store.runs.manifest import RunManifest

_ITS_RUN = "name a run of the model it was trained on"


def check_width(
    sae: str, size: int, layer: str, width: int, hint: str = _ITS_RUN, *, outputs: bool = False
) -> None:
    """Raises UserError when `layer` does not have the width that `sae` reads (with `outputs`, that
    it writes). Both names are words of the sentence: "SAE 'a'", "layer 'b' of run 'c'"."""
    if size != width:
        does = f"writes {size} outputs" if outputs else f"reads {size} inputs"
        raise UserError(f"{sae} {does}, {layer} has width {width}", hint=hint)


def check_has_feature(feature: int, sae_id: str, n_latents: int) -> None:
    """Raises NotFoundError for a number that no feature of the SAE has."""
    if not 0 <= feature < n_latents:
        raise NotFoundError(
            f"feature {feature} is not in SAE {sae_id!r}",
            hint=f"its features are 0 to {n_latents - 1}",
        )


class _Rule(Protocol):
    architecture: ClassVar[str]
    signed: ClassVar[bool]


def check_not_signed(rule: _Rule, sae_id: str, what: str) -> None:
    """Raises UserError for an SAE whose latents may be negative where only strong ones are listed;
    `what` is what cannot be done with it, as in "indexed"."""
    if rule.signed:
        raise UserError(
            f"SAE {sae_id!r} of architecture {rule.architecture!r} has negative latents: it cannot "
            f"be {what}, which orders features by how strongly they fire",
            hint="steer and evaluate it, or encode with load_sae",
        )


class _Sizes(Protocol):
    n_inputs: int
    n_outputs: int


def check_widths(
    sae: str, sizes: _Sizes, place: str, layers: list[tuple[str, int]], hint: str = _ITS_RUN
) -> None:
    """The same for the layer that an SAE reads and the one that it writes (the same unless it is a
    transcoder), each by name and width; `place` is the run or model that has them."""
    (read, width), (written, width_out) = layers
    check_width(sae, sizes.n_inputs, f"layer {read!r} of {place}", width, hint)
    where = f"layer {written!r} of {place}"
    check_width(sae, sizes.n_outputs, where, width_out, hint, outputs=True)


def check_run(
    sae_id: str, model_id: str, tokenizer_hash: str | None, manifest: RunManifest
) -> None:
    """Raises UserError when a run is of a model with another tokenizer than the SAE's, where that
    is known."""
    if tokenizer_hash not in (None, manifest.tokenizer_hash):
        raise UserError(
            f"run {manifest.run_id!r} is of model {manifest.model_id!r}, SAE {sae_id!r} of "
            f"{model_id!r}",
            hint=_ITS_RUN,
        )


def check_captured_with(
    model_id: str, tokenizer_hash: str, manifest: RunManifest, hint: str
) -> None:
    """Raises UserError when a model has another tokenizer than the one a run was captured with."""
    if tokenizer_hash != manifest.tokenizer_hash:
        raise UserError(
            f"model {model_id!r} has another tokenizer than the one run {manifest.run_id!r} was "
            "captured with",
            hint=hint,
        )


def run_of(sae_id: str, asked: str | None, trained_on: str | None, hint: str = "") -> str:
    """The run that an SAE is to be read over: the one `asked` for, else the one it was trained on.
    Raises UserError without either."""
    run_id = asked or trained_on
    if run_id is None:
        raise UserError(
            f"SAE {sae_id!r} does not say which run it belongs to",
            hint=hint or "name one with --run",
        )
    return run_id


def report_differences(metadata: SaeMetadata, manifest: RunManifest, progress: Progress) -> None:
    """Logs how an SAE's model or the beginning of its texts differs from a run's, where that is no
    reason to refuse: one model can have several names."""
    name = metadata.model_name
    if name and name != manifest.model_id:
        progress.log(
            f"run {manifest.run_id!r} is of model {manifest.model_id!r}, the SAE of {name!r}: the "
            "results are valid only if these are the same model"
        )
    wanted, found = metadata.prepend_bos, manifest.settings.get("begins_with_bos")
    if wanted is None or found is None or wanted == found:
        return
    progress.log(
        f"the SAE is for texts {'with' if wanted else 'without'} a BOS token in front, run "
        f"{manifest.run_id!r} has them {'with' if found else 'without'} one: capture with "
        f"--bos {'yes' if wanted else 'no'}"
    )
