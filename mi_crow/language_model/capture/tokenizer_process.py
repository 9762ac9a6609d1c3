"""A capture's tokenizing process: `python -m mi_crow.language_model.capture.tokenizer_process`.

Reads a fast tokenizer's JSON and then Arrow batches of texts on stdin, writes Arrow batches of
token ids on stdout. Imports neither torch nor transformers, so it starts at once, and it never
waits for the interpreter that drives the model.
"""

import os
import sys
from collections.abc import Sequence
from itertools import chain
from typing import IO, Any

import numpy as np
import pyarrow as pa

TEXTS = pa.schema([("text", pa.large_string())])
TOKENS = pa.schema(
    [
        ("ids", pa.list_(pa.int32())),
        # Where each token begins and ends in the text, in characters; null for short texts.
        ("starts", pa.list_(pa.int32())),
        ("ends", pa.list_(pa.int32())),
    ]
)


def tokens_of(encoder: Any, texts: Sequence[str], offsets_above: int | None) -> pa.RecordBatch:
    """Ids of each text without special tokens added, and offsets for texts of more ids than
    `offsets_above` (None: never)."""
    found = encoder.encode_batch_fast(texts, add_special_tokens=False)
    ids = [one.ids for one in found]
    offsets: list[list[tuple[int, int]] | None] = [None] * len(ids)
    if offsets_above is not None:
        long = [number for number, one in enumerate(ids) if len(one) > offsets_above]
        again = encoder.encode_batch([texts[number] for number in long], add_special_tokens=False)
        for number, one in zip(long, again, strict=True):
            offsets[number] = one.offsets
    return token_batch(ids, offsets)


def token_batch(
    ids: Sequence[Sequence[int]], offsets: Sequence[Sequence[tuple[int, int]] | None]
) -> pa.RecordBatch:
    """Ids and character offsets of some texts as one batch of the schema TOKENS."""
    lengths = np.fromiter((len(one) for one in ids), np.int32, len(ids))
    ends = np.zeros(len(ids) + 1, np.int32)
    np.cumsum(lengths, out=ends[1:])
    flat = np.fromiter(chain.from_iterable(ids), np.int32, int(ends[-1]))
    columns = [pa.ListArray.from_arrays(pa.array(ends), pa.array(flat))]
    for side in (0, 1):
        columns.append(
            pa.array(
                [None if one is None else [pair[side] for pair in one] for one in offsets],
                TOKENS.field(1).type,
            )
        )
    return pa.record_batch(columns, schema=TOKENS)


def main() -> int:
    """Serves until stdin ends."""
    from tokenizers import Tokenizer

    limit = int(sys.argv[1])
    source: IO[bytes] = sys.stdin.buffer
    # A copy of stdout for the protocol; what libraries print goes to stderr.
    target = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    size = int.from_bytes(source.read(8), "big")
    encoder = Tokenizer.from_str(source.read(size).decode())
    encoder.no_truncation()
    encoder.no_padding()
    with pa.ipc.new_stream(target, TOKENS) as writer:
        for batch in pa.ipc.open_stream(source):
            texts = batch.column(0).to_pylist()
            writer.write_batch(tokens_of(encoder, texts, None if limit < 0 else limit))
            target.flush()
    target.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
