"""What the hub's cache on this machine holds of SAEs. Torch-free."""

from collections.abc import Iterator
from pathlib import Path

_WEIGHTS = (".safetensors", ".npz", ".pt", ".pth")


class Cached(dict[str, int]):
    """How many files of weights are in each folder of the cached repositories, with those below
    it: by `org/name/folder`, and `org/name/` for all of a repository."""

    def __init__(self) -> None:
        super().__init__()
        self.repositories: dict[str, list[str]] = {}  # their files

    def add(self, repository: str, names: list[str]) -> None:
        self.repositories.setdefault(repository, []).extend(names)
        for name in names:
            if name.endswith(_WEIGHTS):
                self[f"{repository}/{name}"] = 1
                for folder in Path(name).parents:
                    key = f"{repository}/{folder.as_posix() if folder.parts else ''}"
                    self[key] = self.get(key, 0) + 1

    def saes(self) -> Iterator[tuple[str, str, str]]:
        """Each SAE that its files' names tell: repository, folder or file, and format."""
        from mi_crow.mechanistic.sae.formats.detect import find_saes
        from mi_crow.mechanistic.sae.formats.glance import is_sure

        for repository, names in sorted(self.repositories.items()):
            for one in find_saes(names):
                if is_sure(one, names):
                    yield repository, one.label, one.format


def cached_files() -> Cached:
    """The newest of what is there of each repository; a part of a download is not."""
    from huggingface_hub import constants

    found = Cached()
    for folder in sorted(Path(constants.HF_HUB_CACHE).glob("models--*--*")):
        snapshots = sorted(folder.glob("snapshots/*"), key=_changed)
        if snapshots:
            files = (one for one in snapshots[-1].rglob("*") if one.is_file())
            names = [file.relative_to(snapshots[-1]).as_posix() for file in files]
            found.add("/".join(folder.name.split("--")[1:]), names)
    return found


def _changed(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0
