"""The manifest of an activations run: what was captured, how, and which parts are complete.

`manifest.json` is replaced for every part and is the only commit point: a part that it does not
name does not exist.
"""

import fcntl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mi_crow.errors import CorruptDataError, NotFoundError, UserError, nearest
from mi_crow.store.backup_copy import read_json_with_copy, write_json_with_copy
from mi_crow.store.checksums import FileSum
from mi_crow.store.field_types import check_moment, check_types

MANIFEST_NAME = "manifest.json"
LOCK_NAME = ".lock"
_ITEM_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}
# Of a token beside its activations: its id, its position and the text, compressed.
_TOKEN_FILE_BYTES = 6
FORMAT_VERSION = 3  # 2: shards and their pieces; 3: sizes and checksums of files


@dataclass(frozen=True)
class LayerSpec:
    """One captured hook point: module name (also its folder), short name, width.

    The name has the same meaning in every version: a module's output, with `.input` its input
    (except for a block, where the point says so), or the short name where no module has the
    tensor.
    """

    name: str  # e.g. model.layers.15
    point: str  # short name, e.g. resid_post.15; equals `name` where there is none
    width: int  # d, the size of one activation

    @property
    def signature(self) -> str:
        """The unambiguous name of what was captured."""
        return self.point if self.point.startswith("resid_pre.") else self.name


@dataclass(frozen=True)
class PartSpec:
    """One committed part: `part-<rank>-<index>`.

    A shard is a fixed range of the dataset's documents, captured by one rank as one part, or as
    several pieces if its documents are long.
    """

    rank: int
    index: int
    documents: int  # that start in this part
    tokens: int  # kept tokens = rows of each layer's activations
    shard: int = 0
    piece: int = 0  # 0, 1, .. within the shard
    closes: bool = True  # whether it is the last of the shard
    # By folder (`tokens`, and each layer's name); empty in runs of the formats before 3.
    files: dict[str, FileSum] = field(default_factory=dict)
    # Its contribution to the sums of the same names in the manifest.
    positions: int = 0
    real_positions: int = 0
    rounding: dict[str, list[float]] = field(default_factory=dict)

    @property
    def stem(self) -> str:
        return f"part-{self.rank:03d}-{self.index:05d}"

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "PartSpec":
        """Raises KeyError, TypeError or AttributeError for other data."""
        files = {name: FileSum.from_json(one) for name, one in (data.get("files") or {}).items()}
        return cls(**{**data, "files": files})


@dataclass
class RunManifest:
    """Everything that a reader needs to know about an activations run."""

    run_id: str
    model_id: str
    revision: str | None
    tokenizer_hash: str
    layers: list[LayerSpec]
    dtype: str  # storage dtype: fp32, bf16, fp16, int8
    dataset: dict[str, Any]  # spec: source, split, text_field, label_field, ...
    fingerprint: str  # hash of the texts of the dataset
    settings: dict[str, Any]  # everything else that affects the content
    created: float  # unix seconds
    status: str = "running"  # running | complete
    seconds: float = 0.0
    positions: int = 0  # tokens that went through the model, including padding
    real_positions: int = 0  # without padding
    # Of int8 runs, by layer name: summed squared error and variance; FVU is their ratio.
    rounding: dict[str, list[float]] = field(default_factory=dict)
    parts: list[PartSpec] = field(default_factory=list)
    format_version: int = FORMAT_VERSION
    former_ids: list[str] = field(default_factory=list)  # by which indexes may still refer to it

    @property
    def n_documents(self) -> int:
        return sum(part.documents for part in self.parts)

    @property
    def n_tokens(self) -> int:
        return sum(part.tokens for part in self.parts)

    @property
    def complete(self) -> bool:
        return self.status == "complete"

    def require_complete(self) -> None:
        """Raises UserError while parts of the run are missing."""
        if not self.complete:
            raise UserError(
                f"run {self.run_id!r} is not complete",
                hint="wait for its capture (--after JOB) or resume it: mi-crow jobs",
            )

    @property
    def padding_share(self) -> float:
        return 1 - self.real_positions / self.positions if self.positions else 0.0

    @property
    def rounding_fvu(self) -> dict[str, float]:
        """FVU of each layer due to int8 rounding, without outliers; empty for other dtypes."""
        return {name: error / (total or 1.0) for name, (error, total) in self.rounding.items()}

    def layer(self, name: str) -> LayerSpec:
        """The captured layer with this module name or short name.

        Raises NotFoundError listing what was captured.
        """
        for spec in self.layers:
            if name in (spec.name, spec.point):
                return spec
        known = [spec.point for spec in self.layers]
        raise NotFoundError(
            f"layer {name!r} is not in run {self.run_id!r}",
            hint=f"it holds {nearest(name, known, len(known))}",
        )

    def add(self, part: PartSpec) -> None:
        """Adds a part, which must be complete on disk."""
        self.parts.append(part)
        self._count(part, 1)

    def drop(self, part: PartSpec) -> None:
        """Drops a part and those after it in its shard: a resumed capture makes them again."""
        dropped = [p for p in self.parts if p.shard == part.shard and p.piece >= part.piece]
        for one in dropped:
            self.parts.remove(one)
            self._count(one, -1)

    def _count(self, part: PartSpec, sign: int) -> None:
        self.positions += sign * part.positions
        self.real_positions += sign * part.real_positions
        for name, both in part.rounding.items():
            sums = self.rounding.setdefault(name, [0.0, 0.0])
            for at, value in enumerate(both):
                sums[at] += sign * value

    def save(self, run_dir: Path) -> None:
        write_json_with_copy(
            run_dir / MANIFEST_NAME,
            asdict(self) | {"n_documents": self.n_documents, "n_tokens": self.n_tokens},
        )

    @classmethod
    def load(cls, run_dir: Path) -> "RunManifest":
        """The manifest in `run_dir`.

        Raises NotFoundError when there is none, CorruptDataError when it cannot be understood,
        UserError when a newer mi-crow wrote it.
        """
        path = run_dir / MANIFEST_NAME
        data = read_json_with_copy(path)
        try:
            version = int(data["format_version"])
            if version > FORMAT_VERSION:
                raise UserError(
                    f"run {run_dir.name!r} has format {version}, this mi-crow reads up to "
                    f"{FORMAT_VERSION}",
                    hint="upgrade mi-crow",
                )
            fields = {key: value for key, value in data.items() if key in cls.__annotations__}
            fields["layers"] = [LayerSpec(**layer) for layer in data["layers"]]
            fields["parts"] = [PartSpec.from_json(part) for part in data["parts"]]
            manifest = cls(**fields)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CorruptDataError(f"{path} is not a run manifest ({error!r})") from error
        check_types(manifest, str(path))
        _check_values(manifest, str(path))
        return manifest


def _check_values(manifest: RunManifest, place: str) -> None:
    """Raises CorruptDataError for values that no capture writes."""
    check_moment(manifest.created, f"{place}: created")
    if manifest.dtype not in _ITEM_BYTES:
        raise CorruptDataError(f"{place}: {manifest.dtype!r} is not a storage dtype")
    if any(layer.width < 1 for layer in manifest.layers):
        raise CorruptDataError(f"{place}: a layer must be at least 1 wide")
    if any(min(part.rank, part.index, part.documents, part.tokens) < 0 for part in manifest.parts):
        raise CorruptDataError(f"{place}: a part must not have a negative count")
    roundings = [manifest.rounding, *(part.rounding for part in manifest.parts)]
    if any(len(sums) != 2 for rounding in roundings for sums in rounding.values()):
        raise CorruptDataError(f"{place}: rounding must have two sums per layer")


@contextmanager
def updating_manifest(run_dir: Path) -> Iterator[RunManifest]:
    """The run's current manifest, saved when the block ends. A lock admits one writer at a time, so
    that all ranks of a capture can add parts."""
    with (run_dir / LOCK_NAME).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        manifest = RunManifest.load(run_dir)
        yield manifest
        manifest.parts.sort(key=lambda part: (part.shard, part.piece))
        manifest.save(run_dir)


def stored_bytes(dtype: str, width: int) -> int:
    """Bytes of one token's activation [width] on disk, with its norm, split and scale."""
    return _ITEM_BYTES[dtype] * width + 5 + (4 if dtype == "int8" else 0)


def run_bytes(dtype: str, widths: Iterable[int], tokens: int) -> int:
    """Bytes of a run of this many tokens with layers of these widths, its texts included."""
    return tokens * (sum(stored_bytes(dtype, width) for width in widths) + _TOKEN_FILE_BYTES)


def remove_uncommitted(run_dir: Path, manifest: RunManifest) -> None:
    """Removes the files of parts that a killed capture did not commit."""
    named = {part.stem for part in manifest.parts}
    for folder in ("tokens", *(layer.name for layer in manifest.layers)):
        for file in (run_dir / folder).glob("part-*"):
            if file.stem not in named:
                file.unlink()
