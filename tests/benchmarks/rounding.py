"""On what share of the tokens a rounded encoder product chooses other latents than one in fp32.

    python tests/benchmarks/rounding.py WORKSPACE [--sae SAE ...]

On held-out tokens of the run that each topk SAE was trained on: products of factors rounded to TF32
or bf16 and accumulated in fp32, which is what a GPU does (emulated, so that any machine can measure
it), a bf16 product as the CPU gives it, and `--precision bf16`, whose candidates are looked at once
more in fp32. `latents` is the share of single latents that are others.
"""

import argparse

import torch
from torch import Tensor

from mi_crow.mechanistic.sae.formats.load import load_sae
from mi_crow.mechanistic.sae.kernels.product import rounded_topk_activations, topk_activations
from mi_crow.mechanistic.sae.quality import heldout_sample
from mi_crow.mechanistic.sae.rules.topk import TopKSae
from mi_crow.mechanistic.sae.run_tokens import open_tokens
from mi_crow.store.workspace import Workspace

Found = tuple[Tensor, Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace")
    parser.add_argument("--sae", action="append", help="topk SAEs (default: all)")
    parser.add_argument("--tokens", type=int, default=16_384)
    options = parser.parse_args()
    workspace = Workspace.open(options.workspace)
    for name in options.sae or [one.sae_id for one in workspace.list_saes()]:
        sae = load_sae(workspace.sae_dir(name), torch.device("cpu"))
        if isinstance(sae, TopKSae):
            report(workspace, name, sae, options.tokens)


@torch.inference_mode()
def report(workspace: Workspace, name: str, sae: TopKSae, tokens: int) -> None:
    read = open_tokens(workspace, sae.metadata.run_id or "", sae.metadata.layer_signature, None)
    stored = heldout_sample(sae, read.source, sae.metadata.outlier_norm)[0][:tokens]
    x = sae.encoder_input(sae._rows_to_encode(stored.float()))
    rows, bias, k = sae.encoder_rows, sae.b_enc, sae.k
    exact = topk_activations(x, rows, bias, k)
    print(f"{name}: {len(x):,} tokens, k = {k} of {sae.n_latents:,} latents")
    for what, found in {
        "TF32": topk_activations(tf32(x), tf32(rows), bias, k),
        "bf16, fp32 out": topk_activations(x.bfloat16().float(), rows.bfloat16().float(), bias, k),
        "bf16": topk_activations(x.bfloat16(), rows.bfloat16(), bias.bfloat16(), k),
        "--precision bf16": rounded_topk_activations(x, rows, bias, k, torch.bfloat16),
    }.items():
        sets, latents = differing(found, exact)
        print(f"  {what:18} sets {sets:9.4%}   latents {latents:9.4%}")


def tf32(values: Tensor) -> Tensor:
    """fp32 values rounded to the ten bits of a mantissa that TF32 has, to the nearest even one."""
    bits = values.contiguous().view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


def differing(found: Found, exact: Found) -> tuple[float, float]:
    """The share of tokens with another set of latents, and of latents that are not in both."""
    n_latents = int(max(found[1].max(), exact[1].max())) + 1
    fires = [
        torch.zeros(len(values), n_latents, dtype=torch.bool).scatter_(1, indices, values > 0)
        for values, indices in (found, exact)
    ]
    others = fires[0] & ~fires[1]
    differ = (fires[0] != fires[1]).any(dim=1)
    return float(differ.double().mean()), float(others.sum() / fires[1].sum())


if __name__ == "__main__":
    main()
