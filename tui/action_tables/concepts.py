"""The actions of the Concepts screen, and of what it opens."""

from tui.action_tables.action import Action

CONCEPTS = (
    Action("concepts.filter", "slash", "filter", "filter", "Filter by name, note, #tag or number"),
    Action("concepts.mark", "space", "mark", "mark", "Mark for bulk edit"),
    Action("concepts.mark_range", "v", "mark_range", "to here", "Mark from the last mark", False),
    Action("concepts.mark_all", "asterisk", "mark_all", "all", "Mark all shown, or none", False),
    Action("concepts.tag", "t", "tag", "edit", "Edit the line: name, tags, confidence, note"),
    Action("concepts.tags", "T", "tags", "tags", "Tag the marked or selected concepts", False),
    Action("concepts.rename", "r", "rename", "rename", "Rename the marked or selected concepts"),
    Action("concepts.note", "e", "note", "note", "Write a note"),
    Action(
        "concepts.confidence", "C", "confidence", "confidence", "Set the confidence, 0 to 1", False
    ),
    Action("concepts.remove", "x", "remove", "remove", "Remove the marked or selected concepts"),
    Action("concepts.unnamed", "n", "unnamed", "next", "The unnamed features worth a name most"),
    Action("concepts.coverage", "percent_sign", "coverage", "coverage", "What the names explain"),
    Action("concepts.conflicts", "X", "conflicts", "conflicts", "Names that contradict each other"),
    Action(
        "concepts.compare",
        "equals_sign",
        "compare",
        "contrast",
        "Find features that tell two sets of texts apart",
        False,
    ),
    Action("concepts.inspect", "i", "check", "check", "Check the concept on texts of yours", False),
    Action("concepts.steer", "s", "steer", "steer", "Steer by the feature, or by all marked ones"),
    Action(
        "concepts.steer_tag", "S", "steer_tag", "steer tag", "Steer by all features of a tag", False
    ),
    Action("concepts.export", "w", "export", "export", "Export to .json, .csv or .jsonl"),
    Action("concepts.import", "I", "import_file", "import", "Import .json, .csv or .jsonl"),
    Action("concepts.changes", "H", "history", "changes", "Undo an earlier change"),
    Action("concepts.copy", "y", "copy", "copy", "Copy the selected concept", False),
)

# The popups of Concepts.
CONFLICTS = (
    Action("conflicts.merge", "m", "merge", "one name", "Give these features the first name"),
)

IMPORTS = (
    Action("imports.left", "h", "rule(-1)", "rule", "The rule before"),
    Action("imports.right", "l", "rule(1)", "rule", "The next rule: keep, replace, both, higher"),
    Action("imports.skip", "space", "skip", "skip bad", "Leave out rows that are wrong, or not"),
)

CHECKED = (
    Action("checked.less", "h", "threshold(-1)", "lower", "A lower threshold"),
    Action("checked.more", "l", "threshold(1)", "higher", "A higher threshold"),
)

PAST = (Action("past.show", "f", "next_shown", "of what", "Of the feature, the SAE, everything"),)
