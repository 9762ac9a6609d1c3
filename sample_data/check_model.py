"""Check that the sample model knows its topics: unprompted samples, probe, perplexity, as JSON.

    python -m sample_data.check_model [--model DIR] [--samples 256] [--seed 0]

A model can write fine sentences and be blind to the topic. So the gate is: of 256 texts sampled
from nothing, a probe trained on the raw corpus finds one topic in both halves of at least 80%, and
every topic occurs.
"""

import argparse
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)

from sample_data import corpus_path, model_path
from sample_data.probe import TopicProbe, consistency

CONSISTENT = 0.80
HELD_OUT = 10  # one passage in so many is kept from the probe and measures the perplexity


def sample_texts(
    model: Any, tokenizer: PreTrainedTokenizerBase, number: int, seed: int
) -> list[str]:
    """Texts that the model writes from BOS alone, at temperature 1 with nothing cut off."""
    torch.manual_seed(seed)
    texts: list[str] = []
    while len(texts) < number:
        only_bos = tokenizer([""] * min(64, number - len(texts)), return_tensors="pt")
        ids = model.generate(
            **only_bos.to(model.device),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            max_new_tokens=128,
        )
        texts += [str(tokenizer.decode(row, skip_special_tokens=True)) for row in ids]
    return texts


@torch.no_grad()
def perplexity(model: Any, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> float:
    """Of the tokens after BOS, the closing EOS included."""
    total, tokens = 0.0, 0
    for text in texts:
        ids = torch.tensor([[*tokenizer(text)["input_ids"], tokenizer.eos_token_id]])
        ids = ids.to(model.device)
        count = ids.shape[1] - 1
        total += model(input_ids=ids, labels=ids).loss.item() * count
        tokens += count
    return math.exp(total / tokens)


def unigram_perplexity(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> float:
    """Of a model that knows only how often each token occurs in these very texts."""
    counts = Counter(token for text in texts for token in tokenizer(text)["input_ids"][1:])
    total = sum(counts.values())
    return math.exp(-sum(n * math.log(n / total) for n in counts.values()) / total)


def check(model_folder: Path, samples: int, seed: int) -> dict[str, object]:
    """Every figure of the gate."""
    corpus = pq.read_table(corpus_path()).to_pydict()
    texts, labels = corpus["text"], corpus["label"]
    kept = [at for at in range(len(texts)) if at % HELD_OUT]
    probe = TopicProbe([texts[at] for at in kept], [labels[at] for at in kept])
    held_out, truth = texts[::HELD_OUT], labels[::HELD_OUT]

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    written = sample_texts(model, tokenizer, samples, seed)
    topics = Counter(probe.predict(written))
    agreement = consistency(probe, written)
    right = sum(a == b for a, b in zip(probe.predict(held_out), truth, strict=True))
    return {
        "passed": agreement >= CONSISTENT and len(topics) == len(probe.labels),
        "consistency": agreement,
        "consistency_of_held_out_passages": consistency(probe, held_out),
        "probe_accuracy_on_held_out_passages": right / len(held_out),
        "topics_found": len(topics),
        "topic_counts": dict(topics.most_common()),
        "held_out_perplexity": perplexity(model, tokenizer, held_out),
        "unigram_perplexity": unigram_perplexity(tokenizer, held_out),
        "parameters": model.num_parameters(),
        "samples": samples,
        "first_samples": written[:10],
    }


def main() -> None:
    """Check from the command line; exit status 1 when the gate is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=model_path())
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    figures = check(arguments.model, arguments.samples, arguments.seed)
    print(json.dumps(figures, indent=2))
    raise SystemExit(0 if figures["passed"] else 1)


if __name__ == "__main__":
    main()
