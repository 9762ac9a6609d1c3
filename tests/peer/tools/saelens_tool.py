"""What the real SAELens makes of SAEs: run in an environment that has it.

`run FOLDER` loads the SAE in every subfolder and writes what it gives for x.safetensors;
`make FOLDER` writes one SAE of every kind, with what it gives.
"""

import sys
from pathlib import Path

import torch
from sae_lens import SAE
from safetensors.torch import load_file, save_file

D, M, OUT = 12, 40, 7
META = {"model_name": "sample", "hook_name": "blocks.1.hook_resid_post"}


def answer(sae, x):
    with torch.no_grad():
        return {"latents": sae.encode(x).to_dense(), "reconstruction": sae(x)}


def run(folder):
    x = load_file(folder / "x.safetensors")["x"]
    for place in sorted(path.parent for path in folder.glob("*/cfg.json")):
        sae = SAE.load_from_disk(place).eval()
        save_file(answer(sae, x), place / "answer.safetensors")


def make(folder):
    from sae_lens import (
        GatedSAE,
        GatedSAEConfig,
        JumpReLUSAE,
        JumpReLUSAEConfig,
        StandardSAE,
        StandardSAEConfig,
        TopKSAE,
        TopKSAEConfig,
    )
    from sae_lens.saes.sae import SAEMetadata
    from sae_lens.saes.transcoder import (
        JumpReLUSkipTranscoder,
        JumpReLUSkipTranscoderConfig,
        JumpReLUTranscoder,
        JumpReLUTranscoderConfig,
        SkipTranscoder,
        SkipTranscoderConfig,
        Transcoder,
        TranscoderConfig,
    )

    def config(kind, **keys):
        return kind(d_in=D, d_sae=M, metadata=SAEMetadata(**META), **keys)

    cross = {"d_out": OUT, "apply_b_dec_to_input": False}
    kinds = {
        "standard": StandardSAE(config(StandardSAEConfig)),
        "plain-input": StandardSAE(config(StandardSAEConfig, apply_b_dec_to_input=False)),
        "layer-norm": StandardSAE(config(StandardSAEConfig, normalize_activations="layer_norm")),
        "constant-norm": JumpReLUSAE(
            config(JumpReLUSAEConfig, normalize_activations="constant_norm_rescale")
        ),
        "topk": TopKSAE(config(TopKSAEConfig, k=5)),
        "rescaled": TopKSAE(config(TopKSAEConfig, k=5, rescale_acts_by_decoder_norm=True)),
        "jumprelu": JumpReLUSAE(config(JumpReLUSAEConfig)),
        "gated": GatedSAE(config(GatedSAEConfig)),
        "transcoder": Transcoder(config(TranscoderConfig, **cross)),
        "skip": SkipTranscoder(config(SkipTranscoderConfig, **cross)),
        "jump-transcoder": JumpReLUTranscoder(config(JumpReLUTranscoderConfig, **cross)),
        "jump-skip": JumpReLUSkipTranscoder(config(JumpReLUSkipTranscoderConfig, **cross)),
    }
    torch.manual_seed(0)
    x = torch.randn(32, D) * 2
    for name, sae in kinds.items():
        with torch.no_grad():
            for parameter in sae.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.4)
            if hasattr(sae, "threshold"):
                sae.threshold.abs_()
        sae.eval().save_model(folder / name)
        save_file({"x": x, **answer(sae, x)}, folder / name / "expected.safetensors")


if __name__ == "__main__":
    {"run": run, "make": make}[sys.argv[1]](Path(sys.argv[2]))
