"""Sentences of the library in the app's words: without the flags of the command line; pure."""

import re
from collections.abc import Mapping

_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
_COMMAND = "mi-crow "
# Words of the command line that no label stands for.
_OTHER_WORDS = {
    " (--after JOB)": "",
    ": mi-crow jobs": " from the list of jobs",
    "add --launcher torchrun or slurm": "choose the launcher torchrun or slurm",
    "leave out --launcher and --nproc": "choose the launcher local and one process",
    "--launcher slurm": "the launcher slurm",
    "--map umap": "the map umap",
    "--map pca": "the map pca",
    "--partition, --time and --slurm-arg need": "partition, time limit and other options need",
    ", e.g. --layer resid_post.2": ", e.g. resid_post.2",
    "n_latents = ": "latents = ",
    "use --arch transcoder": "choose a transcoder as the architecture",
    ", as `mi-crow layers` lists them": "",
    "choose with --layer": "choose at hook point",
}


def flags_in(sentence: str) -> list[str]:
    """The flags that a sentence names, in its order."""
    return _FLAG.findall(sentence)


def in_words(sentence: str, labels: Mapping[str, str] | None = None) -> str:
    """The sentence with the `labels` of a form, by their flags, in place of flags."""
    known = labels or {}
    for words, instead in _OTHER_WORDS.items():
        sentence = sentence.replace(words, instead)

    def label(match: re.Match[str]) -> str:
        return known.get(match[0], match[0][2:].replace("-", " "))

    return _FLAG.sub(label, sentence)


def of_a_job(sentence: str) -> str:
    """What a job said when it failed. A command that it names stays one."""
    before, command, rest = sentence.partition(_COMMAND)
    if command and before.endswith("`"):
        return in_words(sentence)
    return in_words(before) + command + rest
