"""The actions of the Control screen."""

from tui.action_tables.action import Action

CONTROL = (
    Action("control.load", "l", "load_model", "load model", "Load the model of the open SAE"),
    Action("control.text", "e", "edit_text", "text", "Edit the text for the statistics"),
    Action("control.measure", "ctrl+r", "measure", "measure", "Measure the layer on the text"),
)
