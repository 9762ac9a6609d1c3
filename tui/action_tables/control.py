"""The actions of the Control screen."""

from tui.action_tables.action import Action

CONTROL = (
    Action("control.measure", "ctrl+r", "measure", "measure", "Measure the layers on the text"),
    Action("control.filter", "slash", "filter", "filter", "Filter the layers by words"),
    Action("control.text", "e", "edit_text", "text", "Edit the text to measure on"),
    Action("control.new", "n", "add", "new", "New detector or controller on the layer"),
    Action("control.toggle", "space", "switch", "on/off", "Switch the hook on or off"),
    Action("control.less", "less_than_sign", "nudge(-1)", "less", "Decrease the hook's value"),
    Action("control.more", "greater_than_sign", "nudge(1)", "more", "Increase the hook's value"),
    Action("control.remove", "x", "remove", "remove", "Remove the hook"),
    Action("control.steer", "s", "steer", "steer", "Put the layer on the stack of Steer"),
    Action("control.vectors", "D", "vectors", "vectors", "The vectors of the workspace"),
    Action("control.vector", "V", "vector", "vector here", "Make a vector at this layer"),
    Action("control.capture", "w", "capture", "capture", "Capture the activations of this layer"),
    Action("control.load", "l", "load_model", "load model", "Load the model of the open SAE"),
)
