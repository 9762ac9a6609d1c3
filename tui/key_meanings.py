"""What each key means, once for all screens: a letter learnt on one of them holds on the others.

An action may take a key only when its name is among those of the key. Popups and menus ask a
question and write the keys of its answers beside them, so theirs are not held to this.
"""

from dataclasses import dataclass

ANSWERS = (
    "popup",
    "form",
    "section",
    "columns",
    "map",
    "new",
    "kept",
    "presets",
    "measurements",
    "arms",
    "turns",
    "vectors",
    "causes",
    "grid",
    "conflicts",
    "imports",
    "past",
    "differences",
    "inspections",
    "sources",
)  # scopes whose keys answer what is asked on the screen


@dataclass(frozen=True)
class Meaning:
    """What a key does wherever it does something."""

    words: str
    names: tuple[str, ...]  # of the actions that mean this: what is behind the dot of their ids


MEANINGS = {
    # Letters.
    "a": Meaning("attribution: why", ("attribute",)),
    "b": Meaning("activation band", ("band",)),
    "c": Meaning("cancel", ("cancel",)),
    "d": Meaning("how texts are drawn", ("texts",)),
    "e": Meaning("edit the text, the prompt or the note", ("text", "prompt", "note")),
    "f": Meaning("which are shown", ("show",)),
    "g": Meaning("first", ("first",)),
    "h": Meaning("left, or less", ("left", "less")),
    "i": Meaning("inspect", ("inspect",)),
    "j": Meaning("down", ("down",)),
    "k": Meaning("up", ("up",)),
    "m": Meaning("map", ("map",)),
    "n": Meaning("new, or the next to be named", ("new", "unnamed")),
    "o": Meaning("order", ("order",)),
    "p": Meaning("presets, or patch", ("presets", "patch")),
    "q": Meaning("quit", ("quit",)),
    "r": Meaning("rename", ("rename",)),
    "s": Meaning("steer", ("steer",)),
    "t": Meaning("tag", ("tag",)),
    "v": Meaning("mark a range", ("mark_range",)),
    "w": Meaning("write to a file, or a layer's activations to a run", ("export", "capture")),
    "x": Meaning("remove", ("remove",)),
    "y": Meaning("copy", ("copy",)),
    # The log of a job and the load of a model are both `l`; in a text it is the way to the right.
    "l": Meaning("log, load, right in a text, or more", ("log", "load", "right", "more")),
    "u": Meaning("undo", ("undo",)),
    "z": Meaning("undo", ("undo",)),
    # Capitals: the same the other way round, or the rarer thing.
    "A": Meaning("auto: find a setting; ask why in a form", ("auto", "ask")),
    "B": Meaning("branches of a chat", ("chat",)),
    "C": Meaning("confidence", ("confidence",)),
    "D": Meaning("directions: vectors, or the logit lens", ("lens", "vectors")),
    "E": Meaning("edit the values and start again", ("again",)),
    "F": Meaning("figures: measure", ("measure",)),
    "G": Meaning("last", ("last",)),
    "H": Meaning("history of changes, or much less", ("changes", "much_less")),
    "I": Meaning("import", ("import",)),
    "K": Meaning("what was saved", ("kept",)),
    "L": Meaning("much more", ("much_more",)),
    "M": Meaning("all layers, or all that was measured", ("layers", "measured")),
    "N": Meaning("the one before that has no name", ("unnamed_back",)),
    "O": Meaning("reverse the order", ("reverse",)),
    "P": Meaning("save as a preset", ("save_preset",)),
    "R": Meaning("resume", ("resume",)),
    "S": Meaning("save; on Concepts, steer by a tag", ("save", "steer_tag")),
    "T": Meaning("tags of all that are marked", ("tags",)),
    "U": Meaning("unlikely tokens: keep a text plausible", ("constrain",)),
    "V": Meaning("vary the strength, or make a vector of a layer", ("sweep", "vector")),
    "W": Meaning("windows over a long text", ("windows",)),
    "X": Meaning("names that contradict each other", ("conflicts",)),
    # Signs.
    "apostrophe": Meaning("jump to a pane or field", ("jump",)),
    "asterisk": Meaning("mark all that are shown", ("mark_all",)),
    "colon": Meaning("every action", ("palette",)),
    "equals_sign": Meaning("compare", ("compare",)),
    "exclamation_mark": Meaning("messages", ("messages",)),
    "greater_than_sign": Meaning("more", ("more",)),
    "left_square_bracket": Meaning("previous", ("previous",)),
    "less_than_sign": Meaning("less", ("less",)),
    "number_sign": Meaning("go to a number", ("number",)),
    "percent_sign": Meaning("how much is named", ("coverage",)),
    "plus": Meaning("one pane alone, or all", ("zoom",)),
    "question_mark": Meaning("help", ("help",)),
    "right_square_bracket": Meaning("next", ("next",)),
    "slash": Meaning("filter", ("filter",)),
    "space": Meaning("mark, or on and off", ("mark", "toggle")),
    "vertical_line": Meaning("columns", ("columns",)),
    # The rest.
    "alt+left": Meaning("back to where you were", ("back",)),
    "alt+right": Meaning("forward again", ("forward",)),
    "backspace": Meaning("back to where you were", ("back",)),
    "ctrl+d": Meaning("down a page", ("page_down",)),
    "ctrl+p": Meaning("every action", ("palette",)),
    "ctrl+r": Meaning("run", ("run", "submit", "measure")),
    "ctrl+u": Meaning("up a page", ("page_up",)),
    "ctrl+y": Meaning("redo", ("redo",)),
    "ctrl+z": Meaning("to the shell, as everywhere; in a text, undo", ("suspend",)),
    "down": Meaning("down", ("down",)),
    "end": Meaning("last", ("last",)),
    "enter": Meaning("open", ("open",)),
    "escape": Meaning("stop, close, leave the field, clear the filter, go back", ("escape",)),
    "f8": Meaning("a picture of the screen", ("picture",)),
    "home": Meaning("first", ("first",)),
    "left": Meaning("left", ("left",)),
    "pagedown": Meaning("down a page", ("page_down",)),
    "pageup": Meaning("up a page", ("page_up",)),
    "right": Meaning("right", ("right",)),
    "shift+backspace": Meaning("forward again", ("forward",)),
    "up": Meaning("up", ("up",)),
}
