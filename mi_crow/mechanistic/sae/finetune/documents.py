"""The order in which a finetune reads the documents of a run."""

from collections.abc import Iterator, Sequence
from itertools import count, islice

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.evaluation.documents import (
    Place,
    document_places,
    read_documents,
)
from mi_crow.mechanistic.sae.evaluation.model_loss import TokenDocument
from mi_crow.mechanistic.sae.source import permutation
from mi_crow.store.runs.reader import RunReader


class DocumentBatches:
    """Batches of whole training documents, which together have `batch_size` tokens that an SAE
    reads; of the last one only as many count. Batch i depends on (seed, i) alone."""

    def __init__(self, reader: RunReader, batch_size: int, seed: int) -> None:
        """Raises UserError for a run without training documents."""
        self._reader = reader
        self._batch_size, self._seed = batch_size, seed
        self._places: list[Place] = [
            place for place in document_places(reader, heldout=False) if place.kept
        ]
        if not self._places:
            raise UserError(
                f"run {reader.manifest.run_id!r} contains no documents to train on",
                hint="nine tenths of the documents are: capture more of them",
            )

    def batches(self, first: int, last: int) -> Iterator[Sequence[TokenDocument]]:
        """The batches number `first` to `last` - 1; their documents are in memory meanwhile."""
        chosen = list(islice(self._chosen(), first, last))
        documents = read_documents(self._reader, {place for batch in chosen for place in batch})
        for batch in chosen:
            left = self._batch_size
            cut: list[TokenDocument] = []
            for place in batch:
                document = documents[place]
                cut.append(TokenDocument(document.token_ids, document.kept[:left]))
                left -= place.kept
            yield cut

    def _chosen(self) -> Iterator[list[Place]]:
        batch: list[Place] = []
        tokens = 0
        for epoch in count():
            for number in permutation(len(self._places), self._seed, epoch).tolist():
                batch.append(self._places[number])
                tokens += batch[-1].kept
                if tokens >= self._batch_size:
                    yield batch
                    batch, tokens = [], 0
