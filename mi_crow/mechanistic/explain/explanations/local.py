"""A chat model of the hub or a folder that answers in this process."""

import threading
from collections.abc import Callable

from mi_crow.errors import UserError
from mi_crow.language_model.chat import chat_prompt
from mi_crow.language_model.config import ModelSpec
from mi_crow.language_model.language_model import LanguageModel

_NEW_TOKENS = 160


def local_chat(model: str, device: str) -> Callable[[str], str]:
    """A function that answers one question at a time with the likeliest tokens.

    Raises NotFoundError for an unknown model, UserError for one without a chat template.
    """
    lm = LanguageModel.from_spec(ModelSpec(model, device=device))
    lock = threading.Lock()

    def ask(question: str) -> str:
        # A text of the corpus must not end its own turn.
        for token in lm.tokenizer.all_special_tokens:
            question = question.replace(token, " ".join(token))
        prompt = chat_prompt(lm.tokenizer, [{"role": "user", "content": question}]).text
        with lock:
            found = lm.generate(prompt, _NEW_TOKENS, temperature=0.0, bos="no")
        return found.text

    if getattr(lm.tokenizer, "chat_template", None) is None:
        raise UserError(
            f"model {model!r} has no chat template, so it cannot be asked",
            hint="use an instruction-tuned model",
        )
    return ask
