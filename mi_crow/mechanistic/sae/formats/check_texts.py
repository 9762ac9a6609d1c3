"""The texts that an SAE's fit is measured on: some documents, or as many as give enough tokens."""

from dataclasses import replace
from typing import TYPE_CHECKING

from mi_crow.datasets.loading import load_texts
from mi_crow.language_model.token_ids import ids_decoder
from mi_crow.language_model.tokenize import special_ids
from mi_crow.mechanistic.sae.formats.config import CheckConfig

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel


def texts_to_check(lm: "LanguageModel", check: CheckConfig, offline: bool) -> list[str]:
    """The first texts of the data set; fewer where it has no more. Of `tokens` special ones do not
    count, as they are not measured. Raises what reading the data set raises."""
    most = check.tokens or check.documents  # a document has a token or more
    dataset = replace(check.dataset, limit=most)
    rows = load_texts(dataset, offline, decode=ids_decoder(lm.tokenizer)).rows()
    if check.tokens is None:
        return [text for text, _ in rows]
    found, count, special = [], 0, special_ids(lm.tokenizer)
    for text, _ in rows:
        found.append(text)
        (ids,) = lm.tokenize([text], check.context_length)
        count += sum(one not in special for one in ids)
        if count >= check.tokens:
            break
    return found
