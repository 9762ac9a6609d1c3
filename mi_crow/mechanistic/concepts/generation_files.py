"""Saved generations as files: JSON for programs, Markdown for people. Torch-free."""

import time
from collections.abc import Sequence
from pathlib import Path

from mi_crow.errors import UserError
from mi_crow.mechanistic.concepts.annotations_rows import SavedGeneration
from mi_crow.mechanistic.concepts.saved_files import quoted, write_saved
from mi_crow.mechanistic.steering.chat.branches import Branches, transcript
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.visible import visible


def write_generations(path: Path, found: Sequence[SavedGeneration]) -> Path:
    """Writes generations to a .json or .md file; see `write_saved`."""
    return write_saved(path, found, lambda: as_markdown(found))


def as_markdown(found: Sequence[SavedGeneration]) -> str:
    """A section for each generation: what made it, the prompt and both texts."""
    return "\n".join(_section(one) for one in found)


def _section(one: SavedGeneration) -> str:
    changes = [
        Intervention.from_json(row).describe() for row in one.settings.get("interventions", ())
    ]
    made = {
        "saved": time.strftime("%Y-%m-%d %H:%M", time.localtime(one.created)),
        "model": one.model_id + (f" ({one.revision})" if one.revision else ""),
        "SAE": ", ".join(one.sae_ids),
        "interventions": "; ".join(changes) or "none",
        "seed": str(one.seed),
        **{
            name.replace("_", " "): str(value)
            for name, value in one.settings.items()
            if name not in ("interventions", "messages")
        },
        **{
            name.replace("_", " "): f"{value:.4g}"
            for name, value in one.metrics.items()
            if isinstance(value, int | float)
        },
    }
    facts = [f"- {name}: {visible(value)}" for name, value in made.items() if value]
    texts = [
        f"**{title}**\n\n{quoted(text)}\n"
        for title, text in (
            *heard_texts(one),
            ("baseline", one.baseline),
            ("steered", one.steered),
        )
    ]
    return "\n".join([f"## Generation {one.id}\n", *facts, "", *texts])


def heard_texts(one: SavedGeneration) -> list[tuple[str, str]]:
    """The prompt, or what each side of a chat had heard."""
    try:
        messages = one.settings.get("messages")
        chat = None if messages is None else Branches.from_json(messages)
    except UserError:
        chat = None
    if chat is None:
        return [("prompt", one.prompt)]
    if chat.alike:
        return [("chat", transcript(chat.steered))]
    return [
        ("chat of the baseline", transcript(chat.baseline)),
        ("steered chat", transcript(chat.steered)),
    ]
