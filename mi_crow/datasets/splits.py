"""Which documents are held out: decided only by the text."""

from hashlib import sha256

TRAIN, HELDOUT = "train", "heldout"
TRAINED_SHARE = 0.9  # of the texts: one in ten is held out


def split_of(text: str) -> str:
    """`heldout` when SHA-256 of the text is 0 modulo 10, else `train`."""
    digest = int.from_bytes(sha256(text.encode("utf-8", "surrogatepass")).digest(), "big")
    return HELDOUT if digest % 10 == 0 else TRAIN
