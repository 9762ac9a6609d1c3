"""The sample corpus and the small language model trained on its grammar: where they lie."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def corpus_path() -> Path:
    """The labelled corpus: Parquet with the columns id, text, label and register."""
    return _HERE / "corpus.parquet"


def model_path() -> Path:
    """The folder that `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer` load."""
    return _HERE / "model"
