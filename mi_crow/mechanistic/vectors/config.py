"""How a vector is to be made: plain data. Torch-free."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, get_args

from mi_crow.bounds import COUNT, SEED, Limits, Words, check_fields
from mi_crow.errors import UserError
from mi_crow.language_model.config import BOS

Method = Literal["mean", "pca", "probe", "reft-r1"]
METHODS = get_args(Method)
POOLS = ("mean", "last")


@dataclass(frozen=True)
class VectorConfig:
    """Two sets of texts, where they are told apart, and how."""

    layers: tuple[str, ...]
    texts_for: tuple[str, ...]  # see `texts.texts_of`
    against: tuple[str, ...]
    method: Method = "mean"
    run_id: str | None = None  # whose labels and documents are meant
    pool: str = "mean"  # of the tokens of a text: their mean, or the last one
    limit: int = 512  # texts of each set
    steps: int = 120  # of training, for reft-r1
    seed: int = 0
    bos: str = "auto"

    LIMITS: ClassVar[Limits] = {
        "method": ("method", Words(METHODS)),
        "pool": ("pool", Words(POOLS)),
        "bos": ("bos", Words(BOS)),
        "limit": ("limit", COUNT),
        "steps": ("steps", COUNT),
        "seed": ("the seed", SEED),
    }

    def __post_init__(self) -> None:
        if not self.layers:
            raise UserError("no layer given", hint="name at least one, e.g. --layer resid_post.2")
        if not self.texts_for:
            raise UserError("nothing to find", hint="name texts with --for, e.g. label:sea")
        check_fields(self)

    @property
    def opposite(self) -> tuple[str, ...]:
        """What the texts are told apart from: the rest of a run where nothing else is named."""
        return self.against or ("others",)

    def as_json(self) -> dict[str, Any]:
        """How the vector was made, as it is stored with it."""
        made = asdict(self)
        return {
            "method": made["method"],
            "for": list(self.texts_for),
            "against": list(self.opposite),
            **{key: made[key] for key in ("run_id", "pool", "limit", "seed", "bos")},
            **({"steps": self.steps} if self.method == "reft-r1" else {}),
        }

    @classmethod
    def of(cls, made: dict[str, Any], layers: tuple[str, ...]) -> "VectorConfig":
        """What `as_json` says. Raises UserError for a vector that was not made from texts."""
        try:
            return cls(
                layers,
                tuple(map(str, made["for"])),
                tuple(map(str, made["against"])),
                run_id=made.get("run_id"),
                pool=str(made.get("pool", "mean")),
                limit=int(made.get("limit", 512)),
                seed=int(made.get("seed", 0)),
                bos=str(made.get("bos", "auto")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                "the vector does not say from which texts it was made",
                hint="give them with --for and --against",
            ) from error


@dataclass(frozen=True)
class MakeConfig(VectorConfig):
    """Making a vector as a job: what it is called, and of which model it is."""

    name: str | None = None
    model: str | None = None  # None: that of the run
    revision: str | None = None
    replace: bool = False  # a vector of this name
    device: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name:
            raise UserError("the vector has no name", hint="give one, e.g. calm")
        if self.model is None and self.run_id is None:
            raise UserError("no model given", hint="name one with --model, or a run with --run")

    def fingerprint(self) -> str:
        """Equal for equal settings, wherever they run."""
        settings = {key: value for key, value in asdict(self).items() if key != "device"}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
