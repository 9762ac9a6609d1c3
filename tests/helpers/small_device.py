"""The model session on a device without room for more than a few texts at once."""

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaModel

from mi_crow.session.server import main

COMMAND = (sys.executable, str(Path(__file__)))
ROOM = 8  # texts

if __name__ == "__main__":
    model: Any = LlamaModel
    whole = model.forward

    def forward(self: Any, input_ids: Any = None, **options: Any) -> Any:
        if input_ids is not None and len(input_ids) > ROOM:
            torch.empty(2**50)  # as the allocator refuses
        return whole(self, input_ids, **options)

    model.forward = forward
    raise SystemExit(main())
