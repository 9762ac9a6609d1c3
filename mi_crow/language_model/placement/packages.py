"""What quantized models and those over several devices need, told before they run. Torch-free."""

from importlib.util import find_spec

from mi_crow.errors import UserError
from mi_crow.language_model.config import QUANTIZED, ModelSpec
from mi_crow.store.settings import SPREAD

_EXTRA = 'pip install "mi-crow-tui[big]"'


def check_packages(spec: ModelSpec, gguf: bool) -> None:
    """Raises UserError for a model that cannot be spread or quantized with what is installed;
    `gguf` says whether it is in such a file."""
    if spec.dtype in QUANTIZED:
        what = not_in(spec)
        if gguf:
            raise UserError(
                f"{what}: it is a GGUF file", hint="give the model that it was made from"
            )
        for package in ("accelerate", "bitsandbytes"):
            if find_spec(package) is None:
                raise UserError(f"{what} without the package {package}", hint=_EXTRA)
    if spec.device == SPREAD and find_spec("accelerate") is None:
        raise UserError("a model over several devices needs the package accelerate", hint=_EXTRA)


def not_in(spec: ModelSpec) -> str:
    """That a model cannot be quantized, for a sentence to go on with the reason."""
    return f"model {spec.model!r} cannot be loaded in {spec.dtype}"


def check_processes(spec: ModelSpec, world: int) -> None:
    """Raises UserError for a model that is not to be split over `world` processes: one has nothing
    to split it over, quantized weights are not split, and transformers loads parts by
    accelerate."""
    if world == 1:
        raise UserError(
            "--tensor-parallel splits a model over several processes",
            hint="add --launcher torchrun --nproc N",
        )
    what = f"model {spec.model!r} cannot be split over {world} processes"
    if spec.dtype in QUANTIZED:
        raise UserError(
            f"{what}: it is quantized", hint="leave out --quantize or --tensor-parallel"
        )
    if find_spec("accelerate") is None:
        raise UserError(f"{what} without the package accelerate", hint=_EXTRA)
