"""Weights that are cut into several files: `<name>-00001-of-00002.safetensors`. Torch-free."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from mi_crow.errors import CorruptDataError
from mi_crow.mechanistic.sae.formats.found import FoundSae

_PART = re.compile(r"(.+)-(\d+)-of-(\d+)\.safetensors")


def whole_name(name: str) -> str:
    """What the file would be called in one piece: `name` itself unless it is one of several."""
    match = _PART.fullmatch(name)
    return f"{match[1]}.safetensors" if match is not None else name


def cut_files(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The files of which `names` holds parts, by their names in one piece, each with its parts in
    order."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        if (whole := whole_name(name)) != name:
            found.setdefault(whole, []).append(name)
    return {whole: tuple(parts) for whole, parts in found.items()}


def with_parts(found: FoundSae, cut: Mapping[str, tuple[str, ...]]) -> FoundSae:
    """The SAE with the files that exist, where it names one that is cut."""
    if not any(name in cut for name in found.files):
        return found
    files = (part for name in found.files for part in (name, *cut.get(name, ())))
    return replace(found, files=tuple(dict.fromkeys(files)))


def parts_on_disk(path: Path) -> list[Path]:
    """`path`, or the parts that it is cut into. Raises CorruptDataError naming one that is
    missing."""
    if path.is_file():
        return [path]
    beside = sorted(path.parent.glob("*.safetensors")) if path.parent.is_dir() else []
    parts = {one.name: one for one in beside if whole_name(one.name) == path.name}
    if not parts:
        return [path]
    stem, _, count = max(parts).removesuffix(".safetensors").rpartition("-of-")
    first, digits = stem.rpartition("-")[0], len(stem.rpartition("-")[2])
    wanted = [f"{first}-{at:0{digits}d}-of-{count}.safetensors" for at in range(1, int(count) + 1)]
    missing = [name for name in wanted if name not in parts]
    if missing or len(parts) != len(wanted):
        raise CorruptDataError(
            f"{path.parent} holds parts of {path.name}, but not "
            f"{missing[0] if missing else 'of one and the same file'}",
            hint="copy or download it again",
        )
    return [parts[name] for name in wanted]
