"""A chat endpoint of this machine that explains and judges by rules."""

import json
import re

from tests.helpers.local_server import Answers, LocalServer


class Chat(LocalServer):
    """A chat endpoint. It explains by the word that is marked most often, and judges by whether
    that word is in a text. `faults` are answered first: a status, or a raw body."""

    def __init__(self) -> None:
        super().__init__(_Answer)
        self.faults: list[int | bytes] = []
        self.asked: list[str] = []
        self.keys: list[str | None] = []

    @property
    def url(self) -> str:
        return f"{super().url}/v1"


class _Answer(Answers):
    server: Chat  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        body = json.loads(self.body())
        question = body["messages"][0]["content"]
        self.server.asked.append(question)
        self.server.keys.append(self.headers.get("Authorization"))
        status, raw = 200, b""
        if self.server.faults:
            fault = self.server.faults.pop(0)
            status, raw = (fault, b"") if isinstance(fault, int) else (200, fault)
        if status == 200 and not raw:
            answer = {"choices": [{"message": {"content": answer_to(question)}}]}
            raw = json.dumps(answer).encode()
        self.send(status, raw)


def answer_to(question: str) -> str:
    texts = dict(re.findall(r"^(\d+)\. (.*)$", question, re.MULTILINE))
    if "does not belong" in question:
        words = {n: re.findall(r"<<(.+?)>>", text) for n, text in texts.items()}
        every = [word for some in words.values() for word in some]
        most = max(set(every), key=every.count)
        return f"Answer: {[int(n) for n, some in words.items() if most not in some][:1]}"
    if "Explanation: ..." in question:
        marked = re.findall(r"<<(.+?)>>", " ".join(texts.values()))
        return f"They share a word.\nExplanation: {max(set(marked), key=marked.count)}"
    word = re.search(r"description of (?:texts|words in texts): (.*)", question)
    assert word is not None
    wanted = f"<<{word[1]}>>" if "<<" in question else word[1]
    return f"Answer: {[int(number) for number, text in texts.items() if wanted in text]}"
