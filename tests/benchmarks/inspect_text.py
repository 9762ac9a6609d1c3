"""What looking into a text costs beside the work that no tool can do without.

    python -m tests.benchmarks.inspect_text [--tokens N] [--width D] [--layers L] [--latents M]

Inspection stands beside a bare forward pass to the layer and the encoder's product; attribution
beside a forward and a backward pass and one batch of 20 ablations through the whole model.
Ratios are of the fastest of some rounds, taken in turns, and the median of the rounds' own, which a
machine with other work disturbs less.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from mi_crow.language_model import LanguageModel
from mi_crow.language_model.capture_pass import run_to
from mi_crow.mechanistic.attribution.attribute import attribute
from mi_crow.mechanistic.attribution.passes import graph_pass
from mi_crow.mechanistic.attribution.site import SaeSite
from mi_crow.mechanistic.attribution.target import Target
from mi_crow.mechanistic.sae import SaeMetadata, TopKSae
from mi_crow.mechanistic.sae.substitute import substitute
from mi_crow.mechanistic.steering.inspection import inspect
from mi_crow.mechanistic.steering.loading import LoadedSae, join
from mi_crow.mechanistic.steering.ranking import Ranking, Scales
from tests.helpers.tiny_models import TEXTS, build_tokenizer

_ABLATED = 20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--latents", type=int, default=8192)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    loaded, text = _made(options)
    sizes = f"{options.layers} blocks of width {options.width}, {options.latents:,} latents"
    print(f"{options.tokens} tokens, {sizes}, {options.device}")
    _compare("inspection", options.rounds, *_inspection(loaded, text))
    _compare("attribution", options.rounds, *_attribution(loaded, text))


def _made(options: argparse.Namespace) -> tuple[LoadedSae, str]:
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = build_tokenizer()
    config = AutoConfig.for_model(
        "llama",
        vocab_size=len(tokenizer),
        hidden_size=options.width,
        intermediate_size=4 * options.width,
        num_hidden_layers=options.layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=4096,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval().to(options.device)
    lm = LanguageModel.from_local_torch(model, tokenizer)
    sae = TopKSae(options.latents, options.width, k=32, device=options.device).eval()
    point = lm.layers.resolve(f"resid_post.{options.layers // 2}")
    sae.metadata = SaeMetadata(layer=point.name, point=point.point)
    words = " ".join(TEXTS).split()
    text = ""
    for number in range(10 * options.tokens):
        longer = f"{text} {words[number % len(words)]}".strip()
        if len(lm.tokenize([longer])[0]) > options.tokens:
            break
        text = longer
    return join("made", lm, sae), text


def _inspection(loaded: LoadedSae, text: str) -> tuple[Callable[[], object], Callable[[], object]]:
    lm, sae = loaded.lm, loaded.sae
    encoding = lm.encode([text])
    scales = Scales(
        torch.full((sae.n_latents,), 0.01, device=lm.device),
        torch.ones(sae.n_latents, device=lm.device),
    )

    @torch.inference_mode()
    def bare() -> object:
        x = run_to(lm, [loaded.layer], encoding.input_ids, encoding.attention_mask)[loaded.layer]
        return x[0] @ sae.encoder_rows.t()

    return lambda: inspect(loaded, text, 40, ranking=Ranking(), scales=scales), bare


def _attribution(loaded: LoadedSae, text: str) -> tuple[Callable[[], object], Callable[[], object]]:
    lm, site = loaded.lm, SaeSite.of(loaded)
    encoding = lm.encode([text])
    length = encoding.input_ids.shape[1]
    target = Target("centred_logit", length - 1, 5)
    edits = torch.zeros(_ABLATED, length, loaded.sae.n_inputs, device=lm.device)
    options: dict[str, Any] = {"use_cache": False, "logits_to_keep": 1}

    def bare() -> object:
        graph = graph_pass(lm, encoding, [site], target.position)
        slope = torch.autograd.grad(target.of_logits(graph.logits), graph.readings[0].y)
        with torch.no_grad(), substitute(lm, site.write, lambda y: y + edits):
            lm.model(input_ids=encoding.input_ids.expand(_ABLATED, -1), **options)
        return slope

    return lambda: attribute(lm, encoding, [site], target, top=_ABLATED), bare


def _compare(
    name: str, rounds: int, ours: Callable[[], object], bare: Callable[[], object]
) -> None:
    ours()
    bare()
    times = [(_seconds(ours), _seconds(bare)) for _ in range(rounds)]
    mine, least = (min(column) for column in zip(*times, strict=True))
    middle = median(one / other for one, other in times)
    print(
        f"{name:12} {1000 * mine:8.1f} ms   bare {1000 * least:8.1f} ms   {mine / least:.2f}x   "
        f"median {middle:.2f}x"
    )


def _seconds(work: Callable[[], object]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
