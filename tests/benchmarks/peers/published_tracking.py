"""Tracks texts with the published `mi-crow`, in a process and an environment of its own.

    <python of that environment> published_tracking.py MODEL TEXTS.json STORE LAYER LATENTS BATCH

Reads one JSON line per round on stdin, runs all texts through the model with an SAE attached and
text tracking on, answers with the seconds and the tokens, padding left out, on stdout.
"""

import json
import sys
import time
from pathlib import Path

import torch

from mi_crow.language_model.language_model import LanguageModel
from mi_crow.mechanistic.sae.modules.topk_sae import TopKSae
from mi_crow.store.local_store import LocalStore

CONTEXT = 128


def main() -> None:
    model, texts, folder, layer, latents, batch = sys.argv[1:]
    answers, sys.stdout = sys.stdout, sys.stderr  # the library prints
    torch.set_flush_denormal(True)
    lm = LanguageModel.from_local_torch(model, model, LocalStore(Path(folder)), device="cpu")
    ending = layer.replace(".", "_")  # its names have underscores, and the class in front
    layer = next(name for name in lm.layers.get_layer_names() if name.endswith(ending))
    sae = TopKSae(n_latents=int(latents), n_inputs=lm.model.config.hidden_size)
    sae.context.lm = lm
    sae.context.lm_layer_signature = layer
    sae.sae_engine = sae._initialize_sae_engine(k=32)
    sae.sae_engine.eval()
    lm.layers.register_hook(layer, sae)
    sae.concepts.enable_text_tracking()
    rows = json.loads(Path(texts).read_text())
    size, answer = int(batch), {"ready": True}
    for _ in _rounds(answers, answer):
        tokens, began = 0, time.perf_counter()
        for start in range(0, len(rows), size):
            cut = {"max_length": CONTEXT, "truncation": True, "padding": True}
            _, encodings = lm.inference.execute_inference(rows[start : start + size], cut)
            tokens += int(encodings["attention_mask"].sum())
        answer |= {"seconds": time.perf_counter() - began, "tokens": tokens}


def _rounds(answers, answer):
    """A turn for every line on stdin; what the turn left in `answer` goes out after it."""
    print(json.dumps(answer), file=answers, flush=True)
    for line in sys.stdin:
        yield line
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
