"""Trains with the real sparsify, by its own `Trainer.fit`, in an environment that has it.

    <python of that environment> sparsify_training.py JSON

JSON: `tokens` (safetensors with `train` [n, d]), `order` (safetensors with `order`: rows of it, in
turn), `latents`, `k`, `batch`, `seed`, and either `out`, where the SAE is written, or `steps`,
`warm` and `device`, to be timed block by block (see turns.py). Everything else is sparsify's
default, its batch of 32 sequences of 2,048 tokens aside: half a million tokens make eight of them.
"""

import json
import sys

from turns import Turns, answer  # first, since from here on prints go to stderr

# isort: split
import torch
from safetensors.torch import load_file
from sparsify import SaeConfig, TrainConfig, Trainer
from torch import nn

SEQUENCE = 128


class Activations(nn.Module):
    """The layer whose output the trainer learns: stored tokens, whatever it is given."""

    def __init__(self, rows, order):
        super().__init__()
        self._rows, self._order = rows, order

    def forward(self, numbers):
        """numbers int64 [sequences, 128]: places in the order -> [sequences, 128, d]."""
        first = int(numbers[0, 0])
        places = slice(first, first + numbers.numel())
        rows = self._rows[places] if self._order is None else self._rows[self._order[places]]
        return rows.float().view(*numbers.shape, -1)


class StoredModel(nn.Module):
    """What sparsify needs of a model, with the stored tokens as its only layer."""

    def __init__(self, rows, order, turns):
        super().__init__()
        self.device = rows.device
        self.layer = Activations(rows, order)
        self.dummy_inputs = {"x": torch.zeros(1, 2, dtype=torch.int64, device=rows.device)}
        self._turns = turns

    @property
    def base_model(self):
        return self

    def forward(self, x):
        if self._turns is not None and x.shape[1] == SEQUENCE:
            self._turns.begin_step()
        return self.layer(x)


def main():
    given = json.loads(sys.argv[1])
    torch.set_flush_denormal(True)
    rows = load_file(given["tokens"])["train"]
    order = load_file(given["order"])["order"]
    timed = "out" not in given
    wait = torch.cuda.synchronize if given.get("device") == "cuda" else lambda: None
    turns = Turns(given["steps"], given["warm"], wait) if timed else None
    sequences = torch.arange(len(order)).view(-1, SEQUENCE)
    if timed:  # gathered before, since only the trainer is to be timed
        rows, order = rows[order].float().to(given["device"]), None
    dataset = [{"input_ids": row} for row in sequences] * (10_000 if timed else 1)
    config = TrainConfig(
        SaeConfig(num_latents=given["latents"], k=given["k"]),
        batch_size=given["batch"] // SEQUENCE,
        hookpoints=["layer"],
        init_seeds=[given["seed"]],
        log_to_wandb=False,
        save_dir=given.get("out", ""),
        run_name="run",
    )
    trainer = Trainer(config, dataset, StoredModel(rows, order, turns))
    trainer.fit()
    answer(steps=trainer.global_step, sae=f"{config.save_dir}/run/layer")


if __name__ == "__main__":
    main()
