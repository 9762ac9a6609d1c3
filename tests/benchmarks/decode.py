"""What a token of decoding costs: in a cache that grows, in a static one, and by a captured pass.

    python tests/benchmarks/decode.py [--device cuda] [--width 2304] [--layers 26] [--rows 2 128]
    python tests/benchmarks/decode.py --model DIR|ID [--dtype fp32]

Rows of one prompt, half of them steered by a vector in the middle of the model, as a sweep has
them; the model is random unless one is given. Every token is given, so that all ways read the same
text. Times are the clock's on CUDA, and the process's on a CPU, where a captured pass is stood in
for by recorded operations: there it shows that it runs, and its time says nothing.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mi_crow.language_model import LanguageModel
from mi_crow.language_model.decoding import one_token
from mi_crow.language_model.decoding.steps import DECODES, Decode, Steps
from mi_crow.mechanistic.steering.interventions import parse_intervention
from mi_crow.mechanistic.steering.steer import SteeringParts, steering_with
from mi_crow.mechanistic.vectors.stored import SteeringVector
from tests.benchmarks.rows import Row, write_report
from tests.helpers.recorded_graph import record
from tests.helpers.tiny_models import build_tokenizer

HEAD = 64  # of an attention head


def model_of(options: argparse.Namespace) -> LanguageModel:
    """The model that is asked for, or a random one in the shape of a Llama."""
    if options.model:
        return LanguageModel.from_huggingface(
            options.model, device=options.device, dtype=options.dtype
        )
    from transformers import AutoConfig, AutoModelForCausalLM

    heads = max(1, options.width // HEAD)
    config = AutoConfig.for_model(
        "llama",
        vocab_size=options.vocabulary,
        hidden_size=options.width,
        intermediate_size=4 * options.width,
        num_hidden_layers=options.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=options.width // heads,
        max_position_embeddings=4096,
    )
    dtype = torch.bfloat16 if options.dtype == "bf16" else torch.float32
    with torch.device(options.device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    return LanguageModel.from_local_torch(model, build_tokenizer(), device=options.device)


def decoded(
    lm: LanguageModel, decode: Decode, rows: int, options: argparse.Namespace
) -> tuple[float, Tensor]:
    """Seconds for each token after the third, and the last logits [branches, rows, vocabulary]."""
    generator = torch.Generator().manual_seed(rows)
    ids = torch.randint(
        1, lm.embedding_rows or 300, (options.prompt + options.tokens,), generator=generator
    )
    given = ids[options.prompt :, None].expand(-1, rows).to(lm.device)
    clock = time.perf_counter if lm.device.type == "cuda" else time.process_time
    began = 0.0
    with torch.inference_mode():
        steps = Steps(
            lm,
            [ids[: options.prompt].tolist()],
            (False, True),
            rows // 2,
            new_tokens=options.tokens + 1,
            decode=decode,
        )
        for number, tokens in enumerate(given):
            if number == 3:  # the prompt is read, and a pass is captured
                began = _now(clock, lm.device)
            steps.logits()
            steps.append(tokens)
        last = steps.logits().clone()
    return (_now(clock, lm.device) - began) / (options.tokens - 2), last


def _now(clock: Any, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock()


def measured(lm: LanguageModel, rows: int, options: argparse.Namespace) -> list[Row]:
    """All ways by turns: the median of their ratios to the growing cache."""
    seconds: dict[Decode, list[float]] = {decode: [] for decode in DECODES}
    last: dict[Decode, Tensor] = {}
    for number in range(options.rounds + 1):
        for decode in DECODES:
            spent, last[decode] = decoded(lm, decode, rows, options)
            if number:  # the first of each is to warm up
                seconds[decode].append(spent)
    growing = seconds["growing"]
    found = [Row(f"decode eager, {rows} rows: ms a token", 1e3 * statistics.median(growing))]
    for decode in DECODES[1:]:
        ratio = statistics.median(
            one / other for one, other in zip(seconds[decode], growing, strict=True)
        )
        found.append(Row(f"decode {decode} / eager, {rows} rows", ratio))
    scale = float(last["growing"].abs().max())
    compared: list[tuple[Decode, Decode, float]] = [
        ("static", "growing", 0.05),
        ("graph", "static", 0.001),
    ]
    for decode, other, limit in compared:
        apart = float((last[decode] - last[other]).abs().max()) / scale
        found.append(Row(f"logits, {decode} to {other}, {rows} rows", apart, f"<= {limit}"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--model", help="a folder or a hub id; else a random Llama")
    parser.add_argument("--dtype", default="bf16", choices=("bf16", "fp32"))
    parser.add_argument("--width", type=int, default=2304)
    parser.add_argument("--layers", type=int, default=26)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--rows", type=int, nargs="+", default=[2, 128])
    parser.add_argument("--prompt", type=int, default=32, help="tokens")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("build/decode.json"))
    options = parser.parse_args()
    lm = model_of(options)
    if lm.device.type != "cuda":
        one_token.capture = record
    blocks = lm.layers.blocks()
    layer = blocks[len(blocks) // 2]
    vector = SteeringVector("one", {layer: torch.ones(lm.layers.width(layer))})
    stack = [parse_intervention("vector:one=+0.1norm")]
    rows: list[Row] = []
    with steering_with(lm, SteeringParts(vectors={"one": vector}), stack):
        for count in options.rows:
            rows += measured(lm, count, options)
            write_report(options.out, vars(options), rows)
    for row in rows:
        print(row.line())


if __name__ == "__main__":
    main()
