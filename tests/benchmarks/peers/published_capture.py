"""Captures texts with the published `mi-crow`, in a process and an environment of its own.

    <python of that environment> published_capture.py MODEL TEXTS.json STORE LAYER CONTEXT BATCH

Reads one JSON line per round on stdin, captures all texts, answers with the seconds on stdout.
"""

import json
import sys
import time
from pathlib import Path

import torch
from datasets import Dataset

from mi_crow.datasets.text_dataset import TextDataset
from mi_crow.language_model.language_model import LanguageModel
from mi_crow.store.local_store import LocalStore


def main() -> None:
    model, texts, folder, layer, context, batch = sys.argv[1:]
    answers, sys.stdout = sys.stdout, sys.stderr  # the library prints
    torch.set_flush_denormal(True)
    store = LocalStore(Path(folder))
    lm = LanguageModel.from_local_torch(model, model, store, device="cpu")
    ending = layer.replace(".", "_")  # its names have underscores, and the class in front
    layer = next(name for name in lm.layers.get_layer_names() if name.endswith(ending))
    rows = json.loads(Path(texts).read_text())
    answers.write(json.dumps({"ready": True}) + "\n")
    answers.flush()
    for number, _ in enumerate(sys.stdin):
        dataset = TextDataset(Dataset.from_dict({"text": rows}), store)
        began = time.perf_counter()
        lm.activations.save_activations_dataset(
            dataset,
            layer_signature=layer,
            run_name=f"round-{number}",
            batch_size=int(batch),
            max_length=int(context),
        )
        answers.write(json.dumps({"seconds": time.perf_counter() - began}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
