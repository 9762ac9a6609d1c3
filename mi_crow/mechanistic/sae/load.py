"""Loading an SAE from disk, whichever layout it has."""

from pathlib import Path

import torch

from mi_crow.errors import NotFoundError
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.saelens import CONFIG_NAME, WEIGHTS_NAME, read_saelens


def load_sae(path: str | Path, device: str | torch.device = "cpu") -> SparseAutoencoder:
    """The SAE in a folder (or the folder of the given file), on `device`.

    Raises NotFoundError when there is none, UserError for an architecture that is not supported,
    CorruptDataError for damaged files.
    """
    folder = Path(path)
    if folder.name in (CONFIG_NAME, WEIGHTS_NAME):
        folder = folder.parent
    if not (folder / CONFIG_NAME).is_file():
        raise NotFoundError(
            f"no SAE at {str(path)!r}", hint=f"give a folder that holds {CONFIG_NAME}"
        )
    return read_saelens(folder, device)
