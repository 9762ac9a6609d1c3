"""What the real sparsify makes of SAEs: run in an environment that has it.

`run FOLDER` loads the SAE in every subfolder and writes what it gives for x.safetensors;
`make FOLDER` writes one SAE of every kind, with what it gives.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sparsify import SparseCoder, SparseCoderConfig

D, M = 12, 40


def answer(sae, x):
    with torch.no_grad():
        out = sae(x)
        zeros = torch.zeros(len(x), sae.num_latents)
        latents = zeros.scatter_add(1, out.latent_indices, out.latent_acts.float())
    return {"latents": latents, "reconstruction": out.sae_out}


def run(folder):
    x = load_file(folder / "x.safetensors")["x"]
    for place in sorted(path.parent for path in folder.rglob("cfg.json")):
        sae = SparseCoder.load_from_disk(place)
        save_file(answer(sae, x), place / "answer.safetensors")


def make(folder):
    kinds = {
        "layers.0": {"k": 5},
        "layers.1": {"k": 4, "activation": "groupmax"},
        "layers.0.mlp": {"k": 5, "transcode": True},
        "layers.1.mlp": {"k": 5, "transcode": True, "skip_connection": True},
    }
    torch.manual_seed(0)
    x = torch.randn(32, D) * 2
    for name, keys in kinds.items():
        sae = SparseCoder(D, SparseCoderConfig(num_latents=M, **keys))
        with torch.no_grad():
            for parameter in sae.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.4)
        sae.save_to_disk(folder / name)
        save_file({"x": x, **answer(sae, x)}, folder / name / "expected.safetensors")


if __name__ == "__main__":
    {"run": run, "make": make}[sys.argv[1]](Path(sys.argv[2]))
