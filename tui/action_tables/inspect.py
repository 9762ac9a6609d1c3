"""The actions of Inspect, and of what it opens."""

from tui.action_tables.action import Action

INSPECT = (
    Action("inspect.run", "ctrl+r", "run", "run", "Inspect the text"),
    Action("inspect.text", "e", "edit_text", "edit", "Edit the text"),
    Action(
        "inspect.attribute",
        "a",
        "attribute",
        "why",
        "Why the model says the token after the cursor",
    ),
    Action(
        "inspect.ask", "A", "ask_why", "why…", "Explain a logit, a difference, a feature", False
    ),
    Action("inspect.map", "m", "grid", "grid", "Features by tokens, as a grid"),
    Action("inspect.lens", "D", "lens", "lens", "What the model would say after each layer"),
    Action("inspect.compare", "equals_sign", "compare", "compare", "Compare with another text"),
    Action("inspect.kept", "K", "kept", "saved", "Saved inspections: open, rename, export"),
    Action("inspect.new", "n", "sources", "new", "A text from a file, the index, Steer or a chat"),
    Action("inspect.texts", "d", "next_look", "texts", "Top features under each token, or not"),
    Action(
        "inspect.windows",
        "W",
        "windows",
        "windows",
        "Read long texts in windows, or truncate them",
        False,
    ),
    Action("inspect.vectors", "", "vectors", "vectors", "Vectors, to be rows of the grid", False),
    Action("inspect.layers", "M", "layers", "layers", "How each layer's SAE reads the text", False),
    Action("inspect.patch", "p", "patch", "patch", "Restore parts of one prompt in another", False),
    Action("inspect.order", "o", "next_order", "order", "Order by meaning, share, surprise, more"),
    Action("inspect.show", "f", "next_shown", "show", "Show all, rare or named features", False),
    Action("inspect.mark", "space", "pin", "pin", "Pin the feature to the grid", False),
    Action("inspect.steer", "s", "steer", "steer", "Send the selected feature to Steer"),
    Action("inspect.tag", "t", "tag", "tag", "Name the selected feature"),
    Action("inspect.save", "S", "save", "save", "Save the text with what was found", False),
    Action("inspect.copy", "y", "copy", "copy", "Copy the token's or the text's features", False),
)

# The popups of Inspect.
CAUSES = (
    Action("causes.ablate", "space", "ablate", "ablate", "Ablate the feature here, or restore it"),
    Action("causes.ask", "e", "ask", "edit", "Change the question: target, SAEs, steps"),
    Action("causes.look", "d", "next_look", "look", "The tree, or the features of each SAE"),
    Action("causes.steer", "s", "steer", "steer", "Send the feature to Steer"),
    Action("causes.save", "S", "save", "save", "Save the text with what was found"),
)

GRID = (
    Action("grid.attribute", "a", "attribute", "why", "Find what made the model say it"),
    Action("grid.look", "d", "next_look", "look", "Show the cells another way"),
    Action("grid.vectors", "v", "vectors", "vectors", "Add a vector as a row"),
    Action("grid.remove", "x", "remove", "remove", "Take the vector off the grid"),
    Action("grid.save", "S", "save", "save", "Save the text with what was found"),
)

DIFFERENCES = (
    Action("differences.mark", "space", "mark", "mark", "Mark the feature, or unmark it"),
    Action("differences.mark_all", "asterisk", "mark_all", "all", "Mark all, or none"),
    Action("differences.steer", "s", "steer", "steer", "Send the marked to Steer as one group"),
    Action("differences.tag", "t", "tag", "tag", "Tag the marked features"),
    Action("differences.patch", "p", "patch", "patch", "Patch the second text with the first"),
    Action("differences.save", "S", "save", "save", "Save the texts with what was found"),
)

KEPT_INSPECTIONS = (
    Action("inspections.open", "enter", "select_row", "open", "Show it"),
    Action("inspections.mark", "space", "mark", "mark", "Mark it, or unmark it"),
    Action("inspections.rename", "r", "choose('rename')", "rename", "Give it another name"),
    Action("inspections.export", "w", "choose('export')", "export", "Write the marked to a file"),
    Action("inspections.remove", "x", "choose('remove')", "remove", "Remove the marked"),
)

# The menu that `n` opens on Inspect.
SOURCES = (
    Action("sources.file", "f", "choose('file')", "file", "The text of a file", False),
    Action("sources.document", "d", "choose('document')", "document", "An indexed document", False),
    Action("sources.generation", "s", "choose('generation')", "Steer", "A saved text", False),
    Action("sources.chat", "c", "choose('chat')", "chat", "The text as a conversation", False),
)
