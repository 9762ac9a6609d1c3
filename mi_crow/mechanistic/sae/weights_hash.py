"""The identity of an SAE's weights: the hash of its file. Torch-free."""

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

WEIGHTS_FILE = "sae_weights.safetensors"


@dataclass(frozen=True)
class WeightsFile:
    """A weights file as it was found; files are replaced whole, so a new one has a new inode."""

    path: Path
    device: int
    inode: int
    mtime_ns: int
    size: int

    @classmethod
    def of(cls, sae_dir: Path) -> "WeightsFile | None":
        """The file in an SAE's folder; None without one."""
        path = sae_dir / WEIGHTS_FILE
        try:
            found = os.stat(path)
        except OSError:
            return None
        return cls(path, found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)

    def sha256(self) -> str | None:
        """The hash of the file, computed once; None when it was replaced or removed since."""
        if WeightsFile.of(self.path.parent) != self:
            return None
        return _sha256(self)


@lru_cache(maxsize=32)
def _sha256(file: WeightsFile) -> str:
    with file.path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
