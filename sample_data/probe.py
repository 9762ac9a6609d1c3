"""A bag-of-words probe: which topic a text is on, learned from raw text alone."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np


def bag(text: str) -> Counter[str]:
    """How often each word stands in the text."""
    return Counter(re.findall(r"[a-z]+", text.lower()))


class TopicProbe:
    """Multinomial naive Bayes over words, with one smoothing count for all."""

    def __init__(self, texts: Sequence[str], labels: Sequence[str], smoothing: float = 0.5) -> None:
        bags = [bag(text) for text in texts]
        self.labels = sorted(set(labels))
        self.columns = {word: at for at, word in enumerate(sorted(set().union(*bags)))}
        row = {label: at for at, label in enumerate(self.labels)}
        counts = np.full((len(self.labels), len(self.columns)), smoothing)
        for words, label in zip(bags, labels, strict=True):
            for word, count in words.items():
                counts[row[label], self.columns[word]] += count
        self.log_word = np.log(counts / counts.sum(axis=1, keepdims=True))
        shares = Counter(labels)
        self.log_prior = np.log([shares[label] / len(labels) for label in self.labels])

    def scores(self, text: str) -> np.ndarray:
        """The log posterior of each label, up to a constant."""
        total = self.log_prior.copy()
        for word, count in bag(text).items():
            column = self.columns.get(word)
            if column is not None:
                total += count * self.log_word[:, column]
        return total

    def predict(self, texts: Iterable[str]) -> list[str]:
        """The likeliest label of each text."""
        return [self.labels[int(self.scores(text).argmax())] for text in texts]


def halves(text: str) -> tuple[str, str]:
    """The first and the second half of a text, by words."""
    words = text.split()
    middle = len(words) // 2
    return " ".join(words[:middle]), " ".join(words[middle:])


def consistency(probe: TopicProbe, texts: Sequence[str]) -> float:
    """The share of texts whose two halves the probe puts on the same topic."""
    first, second = zip(*map(halves, texts), strict=True)
    pairs = zip(probe.predict(first), probe.predict(second), strict=True)
    return sum(one == two for one, two in pairs) / len(texts)
