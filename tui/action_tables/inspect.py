"""The actions of Inspect, and of what it opens."""

from tui.action_tables.action import Action

INSPECT = (
    Action("inspect.run", "ctrl+r", "run", "run", "Inspect the text"),
    Action("inspect.text", "e", "edit_text", "edit", "Edit the text"),
    Action(
        "inspect.windows",
        "W",
        "windows",
        "windows",
        "Read a long text in windows of the context, or truncate it",
        False,
    ),
    Action("inspect.attribute", "a", "attribute", "why", "What made the model say what follows"),
    Action("inspect.map", "m", "grid", "grid", "Features by tokens, as a grid"),
    Action("inspect.lens", "D", "lens", "lens", "What the model would say after each layer"),
    Action("inspect.layers", "M", "layers", "layers", "How each layer's SAE reads the text", False),
    Action("inspect.order", "o", "next_order", "order", "Order by meaning, share, surprise, .."),
    Action("inspect.show", "f", "next_shown", "show", "Show all, rare or named features", False),
    Action("inspect.mark", "space", "pin", "pin", "Pin the feature to the grid", False),
    Action("inspect.steer", "s", "steer", "steer", "Send the selected feature to Steer"),
    Action("inspect.tag", "t", "tag", "tag", "Name the selected feature"),
    Action("inspect.copy", "y", "copy", "copy", "Copy the token's or the text's features", False),
)

# The popups of Inspect.
CAUSES = (
    Action("causes.ablate", "space", "ablate", "ablate", "Ablate the feature here, or let it be"),
    Action("causes.steer", "s", "steer", "steer", "Send the feature to Steer"),
)

GRID = (Action("grid.attribute", "a", "attribute", "why", "Find what made the model say it"),)
