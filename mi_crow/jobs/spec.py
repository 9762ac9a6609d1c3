"""spec.json: what a job is to do; configs to and from JSON."""

import time
import types
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from mi_crow.errors import CorruptDataError, UserError, nearest
from mi_crow.store.atomic import read_json, write_json
from mi_crow.store.field_types import check_moment, check_types

SPEC_NAME = "spec.json"
FORMAT_VERSION = 1
LAUNCHERS = ("local", "torchrun", "slurm")

Config = TypeVar("Config")


@dataclass(frozen=True)
class JobSpec:
    """One job: its kind and parameters; never secrets or code."""

    kind: str
    params: dict[str, Any]
    device: str = "auto"
    launcher: str = "local"  # local | torchrun | slurm
    nproc: int = 1  # processes that share the work
    slurm: dict[str, Any] = field(default_factory=dict)  # partition, time in minutes, args
    name: str | None = None
    after: str | None = None  # the job that must finish first
    created: float = field(default_factory=time.time)
    format_version: int = FORMAT_VERSION

    def save(self, job_dir: Path) -> None:
        write_json(job_dir / SPEC_NAME, asdict(self))

    @classmethod
    def load(cls, job_dir: Path) -> "JobSpec":
        """The spec in `job_dir`. Raises NotFoundError or CorruptDataError."""
        path = job_dir / SPEC_NAME
        data = read_json(path)
        try:
            spec = cls(**{key: data[key] for key in cls.__annotations__ if key in data})
        except (TypeError, AttributeError) as error:
            raise CorruptDataError(f"{path} is not a job's spec ({error})") from error
        check_types(spec, str(path))
        check_moment(spec.created, f"{path}: created")
        return spec


def config_as_json(config: Any) -> dict[str, Any]:
    """A config dataclass as plain JSON values."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in asdict(config).items()
    }


def config_from_json(kind: type[Config], data: Any, where: str = "params") -> Config:
    """The config dataclass `kind` from JSON values, nested ones included.

    Raises UserError for an unknown key, a missing key or a value of the wrong type.
    """
    if not isinstance(data, dict):
        raise UserError(f"{where} must be an object, not {type(data).__name__}")
    hints = get_type_hints(kind)
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for key in data:
        if key not in known:
            raise UserError(
                f"{where} has no parameter {key!r}", hint=f"it has {nearest(str(key), known)}"
            )
    for f in fields(kind):  # type: ignore[arg-type]
        if f.name not in data and f.default is MISSING and f.default_factory is MISSING:
            raise UserError(f"{where} lacks {f.name!r}")
    return kind(**{key: _value(hints[key], value, f"{where}.{key}") for key, value in data.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        options = get_args(hint)
        if value is None and type(None) in options:
            return None
        return _value(next(o for o in options if o is not type(None)), value, where)
    if is_dataclass(hint) and isinstance(hint, type):
        return config_from_json(hint, value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{where} must be a list, not {type(value).__name__}")
        return tuple(_value(get_args(hint)[0], item, where) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, bool) and hint is not bool:
        raise UserError(f"{where} must be of type {getattr(hint, '__name__', hint)}, not bool")
    if isinstance(hint, type) and not isinstance(value, hint):
        expected = getattr(hint, "__name__", hint)
        raise UserError(f"{where} must be of type {expected}, not {type(value).__name__}")
    return value
