"""Runs of two pretended models whose features are known: some in both, some in one alone."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mi_crow.store import Workspace
from mi_crow.store.runs.manifest import LayerSpec, PartSpec
from mi_crow.store.runs.parts import stored_rows, write_part
from tests.helpers.made_files import a_manifest
from tests.helpers.stored_runs import documents_table

LAYER = LayerSpec("blocks.0", "resid_post.0", 0)


@dataclass(frozen=True)
class KnownFeatures:
    """A dictionary for each model: [features, d], zeros where a model lacks one."""

    base: Tensor
    tuned: Tensor
    origin: tuple[str, ...]


def known_features(shared: int = 32, alone: int = 8, width: int = 32, seed: int = 0):
    """`shared` in both models, in nearly the same direction, and `alone` in each of them."""
    generator = torch.Generator().manual_seed(seed)
    total = shared + 2 * alone

    def unit(rows: Tensor) -> Tensor:
        return rows / rows.norm(dim=1, keepdim=True)

    base = unit(torch.randn(total, width, generator=generator))
    tuned = unit(base + 0.05 * torch.randn(total, width, generator=generator))
    base[shared + alone :] = 0
    tuned[shared : shared + alone] = 0
    origin = ("shared",) * shared + ("base",) * alone + ("tuned",) * alone
    return KnownFeatures(base, tuned, origin)


def write_two_runs(
    workspace: Workspace, known: KnownFeatures, tokens: int = 16_000, active: float = 3.0
) -> None:
    """The runs `base` and `tuned`: the same tokens, each of about `active` features, with a little
    noise; activations of the tuned model are twice as long."""
    generator = torch.Generator().manual_seed(1)
    n = len(known.origin)
    fires = torch.rand(tokens, n, generator=generator) < active / n
    sizes = 0.5 + torch.rand(tokens, n, generator=generator)
    z = fires * sizes
    lengths = [50] * (tokens // 50)
    heldout = set(range(0, len(lengths), 10))
    for name, rows, scale in (("base", known.base, 1.0), ("tuned", known.tuned, 2.0)):
        noise = 0.02 * torch.randn(tokens, rows.shape[1], generator=generator)
        x = scale * (z @ rows + noise)
        folder = workspace.make_run_dir(name, name)
        layer = LayerSpec(LAYER.name, LAYER.point, x.shape[1])
        manifest = a_manifest(name, [layer], None, dtype="fp32", created=0.0)
        part = PartSpec(0, 0, len(lengths), tokens)
        table = documents_table(lengths, 0, heldout)
        files = write_part(folder, part, table, {layer.name: stored_rows(x, "fp32")})
        part.files.update(files)
        manifest.parts.append(part)
        manifest.save(folder)
