"""Absorption of first letters: where a latent for words on `s` is silent on some words on `s`.

After Chanin et al. 2024 (2409.14507) and SAEBench, at the words' own tokens. A logistic probe per
letter is fitted on activations of training texts. The main latents of a letter are the one whose
firing has the best F1 there, and others while each raises the F1 of all together by 0.03. A
held-out word that the probe tells right is absorbed when no main latent fires and the latent that
adds most along the probe's direction (cosine at least 0.025) adds at least 0.4 of what the word
has along it. The figure is the mean over letters of the absorbed share of the words.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mi_crow.mechanistic.sae import SparseAutoencoder
from mi_crow.store.runs.reader import RunReader

LETTERS = "abcdefghijklmnopqrstuvwxyz"
_WORD_STARTS = ("\u0120", "\u2581")  # what BPE and SentencePiece put before a word
_MOST_WORDS = 40_000  # of a split
_FEWEST = 50  # held-out words that the probe tells right, for a letter to count
_F1_JUMP, _MOST_MAIN = 0.03, 10
_ALIGNED, _SHARE = 0.025, 0.4
_AT_ONCE = 4096  # tokens


@dataclass(frozen=True)
class Words:
    """Tokens that begin a word with a letter."""

    x: Tensor  # [n, d] fp32
    letter: Tensor  # int64 [n]


@dataclass(frozen=True)
class Absorption:
    """Means over `letters` letters, on held-out words."""

    absorbed: float  # share of the words that the probe tells right
    f1: float  # of the main latents' firing together
    letters: int


class FirstLetters:
    """The words of a run and a probe for each letter, to measure any number of SAEs with."""

    def __init__(self, train: Words, heldout: Words) -> None:
        self._train, self._heldout = train, heldout
        self._mean = train.x.mean(0)
        self._probes, bias = _probes(train)
        outcome = heldout.x @ self._probes.T + bias
        own = outcome.gather(1, heldout.letter[:, None])[:, 0]
        self._right = own > 0

    @classmethod
    def of(
        cls, reader: RunReader, token: Callable[[int], str], outlier_norm: float
    ) -> "FirstLetters":
        """`token` gives the vocabulary's own spelling of a token id."""
        rows: dict[bool, list[Tensor]] = {False: [], True: []}
        letters: dict[bool, list[Tensor]] = {False: [], True: []}
        spelled: dict[int, int] = {}
        for part in reader.parts():
            documents = part.columns("token_ids", "kept").to_pylist()
            ids = [row["token_ids"][at] for row in documents for at in row["kept"]]
            for one in set(ids) - set(spelled):
                spelled[one] = _letter(token(one))
            letter = torch.tensor([spelled[one] for one in ids])
            usable = (letter >= 0) & (part.norms <= outlier_norm)
            for heldout in (False, True):
                chosen = (usable & (part.row_split == heldout)).nonzero()[:, 0]
                rows[heldout].append(part.take(chosen).float())
                letters[heldout].append(letter[chosen])
        train, held = (
            _some(torch.cat(rows[heldout]), torch.cat(letters[heldout]))
            for heldout in (False, True)
        )
        return cls(train, held)

    @torch.inference_mode()
    def absorption(self, sae: SparseAutoencoder) -> Absorption:
        """Of one SAE; a letter whose words are too few is left out."""
        fires = _firing(sae, self._train.x)
        shares, f1s = [], []
        for number in range(len(LETTERS)):
            words = (self._heldout.letter == number) & self._right
            if int(words.sum()) < _FEWEST:
                continue
            main = _main_latents(fires, self._train.letter == number)
            found = _fires_at(sae, self._heldout.x, main)
            f1s.append(_f1(found, self._heldout.letter == number))
            missed = self._heldout.x[words & ~found]
            absorbed = self._absorbed(sae, missed, self._probes[number])
            shares.append(int(absorbed.sum()) / int(words.sum()))
        return Absorption(sum(shares) / len(shares), sum(f1s) / len(f1s), len(shares))

    def _absorbed(self, sae: SparseAutoencoder, x: Tensor, probe: Tensor) -> Tensor:
        """Which words [n, d], on which no main latent fires, have their letter in another."""
        if not len(x):
            return torch.zeros(0, dtype=torch.bool)
        along = functional.normalize(probe, dim=0)
        codes = sae.encode_sparse(x)
        rows = sae.decoder_rows.float()
        cosines = functional.normalize(rows, dim=1) @ along
        added = codes.values.float() * (rows @ along)[codes.indices]
        most, at = added.max(1)
        strongest = codes.indices.gather(1, at[:, None])[:, 0]
        whole = (x - self._mean) @ along
        return (cosines[strongest] >= _ALIGNED) & (whole > 0) & (most >= _SHARE * whole)


def _letter(token: str) -> int:
    """0 for a token that begins a word with an a; -1 for what begins none with a letter."""
    if not token.startswith(_WORD_STARTS):
        return -1
    return LETTERS.find(token[1:2].lower()) if token[1:2] else -1


def _some(x: Tensor, letter: Tensor) -> Words:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:_MOST_WORDS]
    return Words(x[order], letter[order])


def _probes(words: Words) -> tuple[Tensor, Tensor]:
    """Balanced one-against-rest logistic regressions: directions [26, d] and their constants."""
    mean, std = words.x.mean(0), words.x.std(0).clamp_min(1e-6)
    x = (words.x - mean) / std
    y = functional.one_hot(words.letter, len(LETTERS)).float()
    inside = y.sum(0).clamp_min(1)
    weight = torch.where(y > 0, len(y) / (2 * inside), len(y) / (2 * (len(y) - inside)))
    direction = torch.zeros(x.shape[1], len(LETTERS), requires_grad=True)
    constant = torch.zeros(len(LETTERS), requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [direction, constant], max_iter=100, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        fit = functional.binary_cross_entropy_with_logits(x @ direction + constant, y, weight)
        loss = len(LETTERS) * fit + 5e-4 * direction.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    plain = (direction.detach() / std[:, None]).T
    return plain, constant.detach() - plain @ mean


def _firing(sae: SparseAutoencoder, x: Tensor) -> Tensor:
    """bool [n, M]."""
    pieces = x.split(_AT_ONCE)
    return torch.cat([sae.encode(piece) > 0 for piece in pieces])


def _fires_at(sae: SparseAutoencoder, x: Tensor, latents: list[int]) -> Tensor:
    """Where any of the latents fires: bool [n]."""
    wanted = torch.tensor(latents)
    found = []
    for piece in x.split(_AT_ONCE):
        codes = sae.encode_sparse(piece)
        found.append((torch.isin(codes.indices, wanted) & (codes.values > 0)).any(-1))
    return torch.cat(found)


def _f1(fires: Tensor, positive: Tensor) -> float:
    both = int((fires & positive).sum())
    return 2 * both / max(1, int(fires.sum()) + int(positive.sum()))


def _main_latents(fires: Tensor, positive: Tensor) -> list[int]:
    """The latent with the best F1 [n, M] and those that raise the F1 of all by the jump."""
    inside = fires[positive].sum(0).double()
    f1 = 2 * inside / (fires.sum(0) + int(positive.sum()))
    main: list[int] = []
    together, best = torch.zeros(len(fires), dtype=torch.bool), 0.0
    for latent in f1.topk(min(4 * _MOST_MAIN, fires.shape[1])).indices.tolist():
        joined = together | fires[:, latent]
        value = _f1(joined, positive)
        if not main or value >= best + _F1_JUMP:
            main.append(latent)
            together, best = joined, value
        if len(main) == _MOST_MAIN:
            break
    return main
