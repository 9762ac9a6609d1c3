"""Trains with the real SAELens, by its own `SAETrainer.fit`, in an environment that has it.

    <python of that environment> saelens_training.py JSON

JSON as for sparsify_training.py. Everything is SAELens's default but `d_sae`, `k` and the batch.
"""

import itertools
import json
import sys

from turns import Turns, answer  # first, since from here on prints go to stderr

# isort: split
import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer
from safetensors.torch import load_file


def batches(rows, order, batch, turns, device):
    """Batches [batch, d]; without end where turns are taken."""
    if turns is None:
        for chosen in order.split(batch):
            yield rows[chosen].float()
        return
    held = [rows[chosen].float().to(device) for chosen in order.split(batch)]
    for x in itertools.cycle(held):
        turns.begin_step()
        yield x


def main():
    given = json.loads(sys.argv[1])
    torch.set_flush_denormal(True)
    rows = load_file(given["tokens"])["train"]
    order = load_file(given["order"])["order"]
    timed = "out" not in given
    device = given.get("device", "cpu")
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    turns = Turns(given["steps"], given["warm"], wait) if timed else None
    torch.manual_seed(given["seed"])
    sae = TopKTrainingSAE(
        TopKTrainingSAEConfig(
            d_in=rows.shape[1], d_sae=given["latents"], k=given["k"], device=device
        )
    )
    config = SAETrainerConfig(
        total_training_samples=10**9 if timed else len(order),
        train_batch_size_samples=given["batch"],
        device=device,
        lr_end=3e-5,  # a tenth of lr, as its runner fills it in; its schedule does not use it
    )
    trainer = SAETrainer(config, sae, batches(rows, order, given["batch"], turns, device))
    trainer.fit()
    sae.save_inference_model(given["out"])
    answer(steps=trainer.n_training_steps, sae=given["out"])


if __name__ == "__main__":
    main()
