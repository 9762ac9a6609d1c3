"""Locating the files of an SAE: in a folder on this machine or a Hugging Face hub repository."""

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mi_crow.errors import CancelledError, CorruptDataError, NotFoundError, UserError
from mi_crow.hub import broken_off, hub_answers, hub_error, quiet_downloads, why_unreached
from mi_crow.hub_parts import LARGE, download, part_bytes
from mi_crow.mechanistic.sae.formats.config import WHERE
from mi_crow.mechanistic.sae.formats.detect import choose, find_saes, one_file
from mi_crow.mechanistic.sae.formats.families import refuse_family
from mi_crow.mechanistic.sae.formats.found import FoundSae
from mi_crow.mechanistic.sae.formats.marks import CIRCUIT_TRACER, LLAMA_SCOPE, SAELENS, SPARSIFY
from mi_crow.mechanistic.sae.formats.moving import Moved, counting
from mi_crow.paths import expanded
from mi_crow.store.free_space import check_disk, same_disk

_DEEPEST = 5  # folders below the given one
_MOST_FILES = 100_000
_WEIGHTS_OF = {
    SAELENS.config: f"{SAELENS.weights} or {SPARSIFY.weights}",
    LLAMA_SCOPE.config: LLAMA_SCOPE.weights,
    CIRCUIT_TRACER.config: "layer_0.safetensors (it may name them in another repository)",
}
# What files of an SAE are called in all its folders, by whatever format, without their ending.
_OF_ANY_SAE = frozenset(
    ["sae_weights", "cfg", "config", "hyperparams", "sae", "ae", "params", "model"]
)
_HUB_ID = re.compile(r"(\w[\w.-]*/[\w.-]+)(?:/(.+))?")


@dataclass(frozen=True)
class LocatedFiles:
    """Files that may be SAEs, named relative to `root` with `/`."""

    given: str  # the path or hub id as the user gave it
    names: tuple[str, ...]
    root: Path | None = None  # None while they are on the hub
    repository: str | None = None
    revision: str | None = None  # the commit on the hub
    asked_revision: str | None = None  # as the user gave it
    sizes: dict[str, int] = field(default_factory=dict)
    sums: dict[str, str] = field(default_factory=dict)  # sha256, where the hub says it
    only: str = ""  # the file or folder that the user wants
    unasked: str = ""  # why the hub was not asked, where its cache alone was looked at

    def find(self, layer: str | None) -> FoundSae:
        """The SAE that the user means. Raises NotFoundError or UserError."""
        if self.only in self.names:
            found = one_file(self.only, set(self.names))
            if found is None:
                self._refuse_family({self.only})
                raise UserError(
                    f"{self.given!r} is not recognised as an SAE by its name",
                    hint="give the folder that it is in",
                )
            return found
        below = self.saes()
        if not below:
            self._refuse_family({name for name in self.names if _within(name, self.only)})
        if not below and any(_within(name, self.only) for name in self.names):
            self._say_what_is_missing()
        if not below and self.unasked:
            raise self._not_all_here("lacks it" if self.only else "holds no SAE")
        return choose(below, layer, self.given)

    def saes(self) -> list[FoundSae]:
        """The SAEs among which one has to be chosen."""
        if self.only in self.names:
            found = one_file(self.only, set(self.names))
            return [found] if found is not None else []
        below = [one for one in find_saes(self.names) if _within(one.weights, self.only)]
        # If the folder itself is an SAE, it is meant rather than those below it.
        return [one for one in below if one.label == self.only] or below

    def _refuse_family(self, names: set[str]) -> None:
        """Raises UserError for files of a known family that cannot be read."""
        beside = {name for name in self.names if any(_beside(name, one) for one in names)}
        refuse_family(names, origin_of(self), self.given, beside)

    def _say_what_is_missing(self) -> None:
        """Raises NotFoundError for a configuration without its weights."""
        for config, weights in _WEIGHTS_OF.items():
            if any(_within(name, self.only) and name.endswith(config) for name in self.names):
                if self.unasked:
                    raise self._not_all_here(f"holds only a part ({config}, but no {weights})")
                raise NotFoundError(f"{self.given!r} holds {config} but no {weights}")

    def _not_all_here(self, part: str) -> NotFoundError:
        return NotFoundError(
            f"{self.unasked}, and its local cache of {self.repository!r} {part}",
            hint="check the network (or --offline and HF_HUB_OFFLINE), then run it again",
        )

    def name_of(self, found: FoundSae) -> str:
        """What to call it: the last part of the given path, and which of several it is. A file that
        is called the same in every SAE of its format is called after its folder.

        Within a repository all parts are kept: the last one is often just `average_l0_82`.
        """
        file = self.only in self.names
        only, place = self.only, expanded(self.given).resolve()
        if place.stem in _OF_ANY_SAE and (file or place.is_file()):
            file, only, place = False, only.rpartition("/")[0], place.parent
        if self.repository is not None:
            name = only.replace("/", "-") or self.repository.rpartition("/")[2]
        else:
            name = place.name
        if self.only in self.names:
            return name.rpartition(".")[0] if file else name
        several = sum(_within(one.weights, self.only) for one in find_saes(self.names)) > 1
        inside = found.label.removeprefix(self.only).strip("/")
        return f"{name}-{inside.replace('/', '-')}" if several and inside else name

    def fetch(
        self, found: FoundSae, target: Path | None = None, moved: Moved | None = None
    ) -> Path:
        """The root of the SAE's files, which are downloaded if they are on the hub.

        `target` is where the SAE will be written afterwards; `moved` counts what is downloaded.
        Raises UserError when a disk is too full or the hub does not return the files,
        CorruptDataError when they are not what the hub says, and CancelledError; what was
        downloaded by then is used by the next attempt.
        """
        if self.root is not None:
            return self.root
        assert self.repository is not None
        from huggingface_hub import hf_hub_download

        wanted = [name for name in found.files if name in self.names]
        self._check_disks(wanted, target)
        bar = None
        if moved is not None:
            # Downloaded, read, then written; the bar counts what was downloaded before.
            moved.expect(self._missing([*found.files]) + 2 * self.bytes_of(found))
            bar = counting(moved)
        roots = set()
        here = {name for name in wanted if not self._missing([name])}
        goes_on = True
        try:
            with quiet_downloads():
                for name in wanted:
                    if name not in here and self._in_pieces(name, bar):
                        here.add(name)
                    goes_on = name in here or self.sizes.get(name, 0) <= LARGE
                    # By the revision as given, so that --offline finds it under that name.
                    path = hf_hub_download(
                        self.repository, name, revision=self.asked_revision, tqdm_class=bar
                    )
                    if name not in here:
                        self._compare(Path(path), name)
                    roots.add(Path(path).parents[name.count("/")])
        except (CancelledError, CorruptDataError):
            raise
        except Exception as error:
            raise broken_off(f"SAE {self.given!r}", error, goes_on=goes_on) from error
        if len(roots) > 1 or self.revision != next(iter(roots)).name:
            raise UserError(
                f"{self.given!r} changed on the hub while it was downloaded", hint="try again"
            )
        return roots.pop()

    def _compare(self, path: Path, name: str) -> None:
        """Raises CorruptDataError, and forgets the file, if it is not the one that the hub has."""
        said = self.sums.get(name)
        if said is None:
            return
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == said:
                return
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise self._damaged(name)

    def _in_pieces(self, name: str, bar: type[Any] | None) -> bool:
        """Whether a large file is whole in the cache now, and is what the hub has."""
        said = self.sums.get(name)
        if said is None and self.sizes.get(name, 0) <= LARGE:
            return False
        assert self.repository is not None
        assert self.revision is not None
        try:
            return download(self.repository, name, self.revision, said, bar)
        except CorruptDataError as error:
            raise self._damaged(name) from error

    def _damaged(self, name: str) -> CorruptDataError:
        return CorruptDataError(
            f"{name!r} of {self.given!r} was damaged on its way (its sha256 is not the hub's)",
            hint="try again; a proxy or a mirror (HF_ENDPOINT) may change files",
        )

    def bytes_of(self, found: FoundSae) -> int:
        """The size of the SAE's files, as far as it is known."""
        if self.root is None:
            return sum(self.sizes.get(name, 0) for name in found.files)
        paths = (self.root / name for name in found.files)
        return sum(path.stat().st_size for path in paths if path.is_file())

    def missing_bytes(self, found: FoundSae) -> int:
        """How much of the SAE has to be downloaded."""
        return 0 if self.root is not None else self._rest([*found.files])

    def _missing(self, wanted: list[str]) -> int:
        from huggingface_hub import try_to_load_from_cache

        assert self.repository is not None
        return sum(
            self.sizes.get(name, 0)
            for name in wanted
            if not isinstance(
                try_to_load_from_cache(self.repository, name, revision=self.revision), str
            )
        )

    def _rest(self, wanted: list[str]) -> int:
        """What is missing, without the parts that an earlier attempt has downloaded."""
        assert self.repository is not None
        sums = [self.sums[name] for name in wanted if name in self.sums]
        there = sum(part_bytes(self.repository, one) for one in sums)
        return max(self._missing(wanted) - there, 0)

    def _check_disks(self, wanted: list[str], target: Path | None) -> None:
        """Raises UserError without space for what is to be downloaded and then written."""
        from huggingface_hub import constants

        cache, what = Path(constants.HF_HUB_CACHE), f"{self.given!r} from the hub"
        whole = sum(self.sizes.get(name, 0) for name in wanted)
        missing = self._rest(wanted)
        if target is None or not same_disk(cache, target):
            check_disk(cache, missing, what)
        if target is not None:
            check_disk(target, whole + (missing if same_disk(cache, target) else 0), what)


def locate(
    path: str | Path,
    revision: str | None = None,
    offline: bool = False,
    *,
    most: int = _MOST_FILES,
) -> LocatedFiles:
    """The files at a path on this machine, or in the hub repository `org/name[/folder or file]`.

    With `offline`, only the local cache of the hub is used; of a folder little more than `most`
    files are listed. Raises NotFoundError or UserError.
    """
    local = expanded(path)
    try:
        if local.is_dir():
            return LocatedFiles(str(path), tuple(listed(local, most)), local)
        if local.is_file():
            return _around(local, str(path))
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read ({error.strerror})") from error
    match = _HUB_ID.fullmatch(str(path)) if isinstance(path, str) else None
    if match is None:
        raise NotFoundError(
            f"no SAE at {str(path)!r}",
            hint=WHERE,
        )
    return _on_hub(str(path), match[1], match[2] or "", revision, offline)


def is_hub_id(path: str) -> bool:
    """Whether `path` names a repository on the hub: nothing on this machine is called like that."""
    return not expanded(path).exists() and _HUB_ID.fullmatch(path) is not None


def _around(file: Path, given: str) -> LocatedFiles:
    """A file with the files that may belong to it: in its folder, and in up to two above."""
    root = file.parent
    names = {entry.name for entry in root.iterdir() if entry.is_file()}
    only = file.name
    if only in ("cfg.json", "config.json", "hyperparams.json", "final.safetensors"):
        root = root.parent if root.name == "checkpoints" else root  # of Llama Scope
        return LocatedFiles(given, tuple(listed(root)), root)
    above = root.parent
    if "config.json" not in names and (above / "config.json").is_file():
        names = {f"{root.name}/{name}" for name in names} | {"config.json"}
        root, only = above, f"{root.name}/{only}"
    return LocatedFiles(given, tuple(sorted(names)), root, only=only)


def listed(root: Path, most: int = _MOST_FILES) -> list[str]:
    """Files below `root` to a limited depth, without hidden ones; little more than `most`."""
    names: list[str] = []
    for folder, folders, files in os.walk(root):
        place = Path(folder).relative_to(root)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if len(place.parts) >= _DEEPEST or len(names) > most:
            folders.clear()
        names += [(place / name).as_posix() for name in files if not name.startswith(".")]
    return names


def _on_hub(
    given: str, repository: str, inside: str, revision: str | None, offline: bool
) -> LocatedFiles:
    asked = not offline and hub_answers()
    try:
        with quiet_downloads():
            if not asked:
                why = "the hub is not asked when offline" if offline else why_unreached()
                return _in_cache(given, repository, inside, revision, why)
            from huggingface_hub import HfApi

            info: Any = HfApi().model_info(repository, revision=revision, files_metadata=True)
    except Exception as error:
        raise hub_error(f"SAE {given!r}", error, asked=asked) from error
    sizes = {item.rfilename: item.size or 0 for item in info.siblings or ()}
    return LocatedFiles(
        given,
        tuple(sizes),
        repository=repository,
        revision=info.sha,
        asked_revision=revision,
        sizes=sizes,
        sums={item.rfilename: item.lfs.sha256 for item in info.siblings or () if item.lfs},
        only=inside.rstrip("/"),
    )


def _in_cache(
    given: str, repository: str, inside: str, revision: str | None, why: str
) -> LocatedFiles:
    from huggingface_hub import snapshot_download

    root = Path(snapshot_download(repository, revision=revision, local_files_only=True))
    names = tuple(listed(root))
    only = inside.rstrip("/")
    return LocatedFiles(given, names, root, repository, root.name, only=only, unasked=why)


def _within(name: str, folder: str) -> bool:
    return not folder or name.startswith(f"{folder}/")


def _beside(name: str, other: str) -> bool:
    return name.rpartition("/")[0] == other.rpartition("/")[0]


def origin_of(files: LocatedFiles) -> str:
    """The path or the repository's name, which may identify an SAE's family or layer."""
    if files.repository is not None:
        return files.repository
    return str(files.root.absolute()) if files.root is not None else ""
