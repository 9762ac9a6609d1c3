"""Write the sample corpus: labelled passages of the grammar as Parquet.

python -m sample_data.generate_corpus [--passages N] [--seed S] [--out PATH]
"""

import argparse
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sample_data import corpus_path
from sample_data.grammar.passages import passages

PASSAGES, SEED = 4800, 0


def corpus(number: int = PASSAGES, seed: int = SEED) -> pa.Table:
    """The corpus as a table; its random numbers are never those of the training passages."""
    drawn = list(passages(number, seed=f"corpus {seed}"))
    return pa.table(
        {
            "id": [f"p{index:05d}" for index in range(len(drawn))],
            "text": [passage.text for passage in drawn],
            "label": [passage.label for passage in drawn],
            "register": [passage.register for passage in drawn],
        }
    )


def main() -> None:
    """Generate from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--passages", type=int, default=PASSAGES)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, default=corpus_path())
    arguments = parser.parse_args()
    table = corpus(arguments.passages, arguments.seed)
    pq.write_table(table, arguments.out, compression="zstd")
    print(f"{table.num_rows} passages written: {arguments.out}")


if __name__ == "__main__":
    main()
