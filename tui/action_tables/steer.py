"""The actions of the Steer screen, of its presets and of what was saved there."""

from tui.action_tables.action import Action

STEER = (
    Action("steer.run", "ctrl+r", "run", "generate", "Generate baseline and steered"),
    Action("steer.prompt", "e", "edit_prompt", "prompt", "Edit the prompt"),
    Action("steer.new", "n", "add", "new", "New intervention"),
    Action("steer.remove", "x", "remove", "remove", "Remove the selected intervention"),
    Action("steer.less", "h,less_than_sign", "nudge(-1)", "less", "Decrease the strength"),
    Action("steer.more", "l,greater_than_sign", "nudge(1)", "more", "Increase the strength"),
    Action("steer.much_less", "H", "nudge(-5)", "", "Decrease the strength a lot", False),
    Action("steer.much_more", "L", "nudge(5)", "", "Increase the strength a lot", False),
    Action("steer.toggle", "space", "switch", "on/off", "Switch the intervention on or off"),
    Action("steer.next", "right_square_bracket", "sample(1)", "next", "Next sample"),
    Action(
        "steer.previous", "left_square_bracket", "sample(-1)", "previous", "Previous sample", False
    ),
    Action("steer.sweep", "V", "sweep", "sweep", "Generate at several strengths"),
    Action("steer.chat", "B", "chat", "chat", "Chat with the model, or the messages of the chat"),
    Action("steer.system", "", "system", "system prompt", "Write the chat's system prompt", False),
    Action(
        "steer.from_baseline",
        "",
        "go_on('baseline')",
        "from baseline",
        "Let both sides of the chat continue from the baseline",
        False,
    ),
    Action(
        "steer.from_steered",
        "",
        "go_on('steered')",
        "from steered",
        "Let both sides of the chat continue from the steered one",
        False,
    ),
    Action("steer.measure", "F", "measure", "measure", "Measure the stack: a sweep, as a job"),
    Action("steer.measured", "M", "measured", "measured", "What was measured, with its chart"),
    Action("steer.auto", "A", "auto", "auto", "Make this feature, label or text happen"),
    Action("steer.cancel", "c", "cancel_measuring", "cancel", "Stop measuring", False),
    Action("steer.vectors", "D", "vectors", "vectors", "The vectors of the workspace"),
    Action(
        "steer.model", "", "model", "model alone", "Steer a model without an SAE of its own", False
    ),
    Action("steer.presets", "p", "presets", "presets", "Load a preset"),
    Action("steer.save_preset", "P", "save_preset", "save preset", "Save the stack", False),
    Action("steer.save", "S", "save", "save", "Save this generation"),
    Action("steer.kept", "K", "kept", "saved", "Saved generations: open, run again, compare"),
    Action("steer.constrain", "U", "constrain", "plausible", "Keep the steered text plausible"),
    Action("steer.inspect", "i", "inspect", "inspect", "Inspect the steered text", False),
    Action("steer.copy", "y", "copy", "copy", "Copy both texts", False),
)

TURNS = (
    Action("turns.edit", "e", "choose('edit')", "edit", "Edit the message"),
    Action("turns.remove", "x", "choose('remove')", "cut", "Remove it and what follows"),
    Action(
        "turns.baseline", "h,left", "choose('baseline')", "baseline", "Both go on from the baseline"
    ),
    Action(
        "turns.steered", "l,right", "choose('steered')", "steered", "Both go on from the steered"
    ),
    Action("turns.system", "s", "choose('system')", "system", "Write the system prompt"),
    Action("turns.new", "n", "choose('new')", "new", "A new chat with the same system prompt"),
    Action("turns.prompt", "p", "choose('prompt')", "prompt", "Back to a prompt"),
)

KEPT = (
    Action("kept.open", "enter", "select_row", "open", "Show it on the screen"),
    Action("kept.again", "R", "choose('again')", "run again", "Generate it again"),
    Action("kept.mark", "space", "mark", "mark", "Mark it, or unmark it"),
    Action("kept.compare", "equals_sign", "choose('compare')", "compare", "Compare two marked"),
    Action("kept.export", "w", "choose('export')", "export", "Write the marked to .md or .json"),
    Action("kept.remove", "x", "choose('remove')", "remove", "Remove the marked"),
)

MEASUREMENTS = (
    Action("measurements.open", "enter", "select_row", "open", "Show its settings and its chart"),
    Action("measurements.new", "n", "choose('new')", "new", "Measure the stack on the screen"),
    Action("measurements.remove", "x", "choose('remove')", "remove", "Remove the measurement"),
)

VECTORS = (
    Action("vectors.open", "enter", "select_row", "look into", "Its features, and texts along it"),
    Action("vectors.steer", "s", "choose('steer')", "steer", "Put the vector on Steer's stack"),
    Action("vectors.inspect", "i", "choose('inspect')", "grid", "A row of it in Inspect's grid"),
    Action("vectors.new", "n", "choose('new')", "new", "Make a vector, as a job"),
    Action("vectors.refine", "f", "choose('refine')", "refine", "Keep only its best features"),
    Action("vectors.rename", "r", "choose('rename')", "rename", "Give it another name"),
    Action("vectors.note", "e", "choose('note')", "note", "Write a note on it"),
    Action("vectors.export", "w", "choose('export')", "export", "Write .safetensors or .gguf"),
    Action("vectors.import", "I", "choose('import')", "import", "From .safetensors or .gguf"),
    Action("vectors.remove", "x", "choose('remove')", "remove", "Remove the vector"),
)

ARMS = (Action("arms.take", "enter", "select_row", "take", "Put this setting on the stack"),)

PRESETS = (
    Action("presets.use", "enter", "select_row", "use", "Replace the stack with it"),
    Action("presets.rename", "r", "choose('rename')", "rename", "Give it another name"),
    Action("presets.remove", "x", "choose('remove')", "remove", "Remove the preset"),
)
