"""Tracks texts with the published `mi-crow`, in a process and an environment of its own.

    <python of that environment> published_tracking.py JSON

`model`, `store`: folders; `texts`: a JSON file; `layer`, `latents`, `k`, `context`, `batch`. For
each line on stdin it runs all texts through the model with an SAE attached and text tracking on,
and answers with the seconds; its first answer has the tokens, padding left out.
"""

import json
import sys
import time
from pathlib import Path
from types import ModuleType

import torch


def without_pictures() -> None:
    """Its SAEs come from `overcomplete`, whose package loads vision models and plots that nobody
    needs here, and with them torchvision and an old matplotlib, which may not load beside this
    torch."""
    for name in ("overcomplete.models", "overcomplete.visualization"):
        unneeded = ModuleType(name)
        unneeded.__dict__["__getattr__"] = lambda _: None
        sys.modules[name] = unneeded


def main() -> None:
    without_pictures()
    from mi_crow.language_model.language_model import LanguageModel
    from mi_crow.mechanistic.sae.modules.topk_sae import TopKSae
    from mi_crow.store.local_store import LocalStore

    given = json.loads(sys.argv[1])
    answers, sys.stdout = sys.stdout, sys.stderr  # the library prints
    torch.set_flush_denormal(True)
    model = given["model"]
    lm = LanguageModel.from_local_torch(
        model, model, LocalStore(Path(given["store"])), device="cpu"
    )
    lm.model.float()  # as its SAE is
    ending = given["layer"].replace(".", "_")  # its names have underscores, and the class in front
    layer = next(name for name in lm.layers.get_layer_names() if name.endswith(ending))
    sae = TopKSae(n_latents=given["latents"], n_inputs=lm.model.config.hidden_size)
    sae.context.lm = lm
    sae.context.lm_layer_signature = layer
    sae.sae_engine = sae._initialize_sae_engine(k=given["k"])
    sae.sae_engine.eval()
    lm.layers.register_hook(layer, sae)
    sae.concepts.enable_text_tracking()
    texts = json.loads(Path(given["texts"]).read_text())
    cut = {"max_length": given["context"], "truncation": True, "padding": True}
    tokens = sum(len(ids) for ids in lm.tokenizer(texts, **(cut | {"padding": False}))["input_ids"])
    print(json.dumps({"tokens": tokens}), file=answers, flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        for start in range(0, len(texts), given["batch"]):
            lm.inference.execute_inference(texts[start : start + given["batch"]], cut, False)
        print(json.dumps({"seconds": time.perf_counter() - began}), file=answers, flush=True)


if __name__ == "__main__":
    main()
