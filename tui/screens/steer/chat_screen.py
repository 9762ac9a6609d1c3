"""Chat on the Steer screen: each message is answered plainly and under the stack, and each side
goes on with what it said itself."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from textual.content import Content
from textual.widgets import Static

from mi_crow.errors import MiCrowError, UserError
from mi_crow.language_model.outline import has_chat_template
from mi_crow.mechanistic.steering.chat.branches import Branches, transcript
from mi_crow.store.json_object import JsonObject
from tui.preferences.key_words import key
from tui.screens.steer.board import Board, turns_of
from tui.screens.steer.keeping import sample_of
from tui.screens.steer.turns import BOTH, TurnChoice, TurnsPopup, chat_words
from tui.screens.steer.writing import Plan, Sample
from tui.screens.steer.writing_screen import SIDES, WritingScreen
from tui.widgets.stream_text import Passage

_PROMPT = "A prompt for the model to continue"
_MESSAGE = "Your next message"


@dataclass(frozen=True)
class Edit:
    """The message whose words are in the field."""

    place: int
    side: str
    role: str


class Chats(WritingScreen):
    """The part of Steer that chats. Its body has `#steer-mode`, the line over the message."""

    def __init__(self) -> None:
        super().__init__()
        self._said: Branches | None = None  # with the answers that are shown; None: no chat
        self._editing: Edit | None = None
        self._typed = ""  # the message that was asked last; "" for a question once more
        self._unsaid: tuple[Branches, str] | None = None  # as it was before what is answered now
        self._prompt = ""  # what was in the field when the chat began
        self._templates: dict[str, bool | None] = {}  # by model: whether it has a chat template

    # What is asked.

    def asked(self, before: Board | None) -> tuple[str, Branches | None]:
        said = self._said
        if said is None:
            return super().asked(before)
        self._typed = text = self.area.text if before is None else ""
        if text.strip():
            if self._editing is not None:
                said = said.until(self._editing.place)
            return text.strip(), said.asked(text.strip())
        asked = said.unanswered()  # the last question once more
        asked.check_asks()
        return asked.steered[-1]["content"], asked

    def asking(self, plan: Plan) -> None:
        if plan.chat is None or plan.titles or self._said is None:
            return  # a sweep is a look aside: the chat goes on from where it was
        self._unsaid = self._said, self._typed
        self._said = plan.chat
        if self._typed:
            self.area.text = ""
        self._editing = None
        self._show_mode()

    def _written(self, _: object = None) -> None:
        self._settle()
        if self._stopped:
            self._take_back()
        super()._written()

    def _not_written(self, error: Exception) -> None:
        """What was asked is in the field again, and one key asks it again."""
        self._take_back()
        if isinstance(error, MiCrowError) and self._said is not None:
            if "no chat template" in str(error):
                error.hint = f"{key('steer.chat')} and {key('turns.prompt')} go back to a prompt"
            elif "the model's context" in str(error):
                error.hint = (
                    f"{key('steer.chat')} lists what was said, {key('turns.remove')} cuts it"
                )
        super()._not_written(error)

    def _take_back(self) -> None:
        """Puts an unanswered message back into the field and removes it from the chat."""
        if self._unsaid is not None and self._board is not None and not self._board.done:
            (self._said, typed), self._unsaid = self._unsaid, None
            if typed and not self.area.text:
                self.area.begin_with(typed)
            self._show_mode()

    def action_sample(self, steps: int) -> None:
        super().action_sample(steps)
        self._settle()

    def _settle(self) -> None:
        """The answers that are shown are what was said."""
        board = self._board
        if self._said is None or board is None or board.plan.chat is None or board.plan.titles:
            return
        shown = sample_of(board.done[0], board.sample) if board.done else Sample()
        if shown.baseline.text or shown.steered.text:
            self._said = board.plan.chat.answered(shown.baseline.text, shown.steered.text)
            self._unsaid = None
        self._show_mode()

    # The chat itself.

    def action_chat(self) -> None:
        """Begins a chat; lists its messages once there is one."""
        if self._said is not None:
            self.app.push_screen(TurnsPopup(self._said), self._turn_chosen)
            return
        if self._can_chat():
            if self._is_writing:
                self.stop_running()
            self._begin()
            self.area.focus()

    def _begin(self) -> None:
        self._prompt = self.area.text
        self._continue(Branches())

    @property
    def _asked_model(self) -> str:
        own, alone = self.context.sae(), self.model_alone
        return alone.model if alone is not None else (own.model_id if own is not None else "")

    def _look_for_template(self) -> None:
        """Reads whether the model has a chat template, where that is not known."""
        if (model := self._asked_model) and model not in self._templates:
            revision = None if self.model_alone is None else self.model_alone.revision
            self._templates[model] = None  # until then it is not known
            self.in_thread(
                partial(has_chat_template, model, revision),
                partial(self._template_looked_for, model),
                failed=lambda _: None,
            )

    def _template_looked_for(self, model: str, found: bool | None) -> None:
        self._templates[model] = found
        self.refresh_bindings()

    @property
    def left_out_keys(self) -> tuple[str, ...]:
        """What the footer has no place for: a chat with a model that has no chat template."""
        return ("steer.chat",) if self._templates.get(self._asked_model) is False else ()

    def _can_chat(self) -> bool:
        """Whether the model may have a chat template; if not, says why."""
        if self._templates.get(self._asked_model) is not False:
            return True
        self.tell(
            UserError(
                "this model has no chat template", hint="write a prompt, or take a chat model"
            )
        )
        return False

    def _turn_chosen(self, choice: TurnChoice | None) -> None:
        said = self._said
        if choice is None or said is None:
            return
        if choice.action in ("edit", "system"):
            self._begin_edit(said, choice)
        elif choice.action == "remove":
            self._continue(said.until(choice.place))
        elif choice.action == "new":
            self._continue(Branches().with_system(said.system))
        elif choice.action == "prompt":
            self._end(said)
        else:
            self._continue(said.from_side(choice.action))
            self.notify(f"Both sides go on from the {choice.action} one")

    def _end(self, said: Branches) -> None:
        """Goes back to a prompt: what is in the field, or the one that the chat began with."""
        first = next((one["content"] for one in said.steered if one["role"] == "user"), "")
        typed = "" if self._editing is not None else self.area.text
        self._continue(None)
        self.area.begin_with(next(filter(str.strip, (typed, self._prompt, first)), ""))

    def action_system(self) -> None:
        """Edits the system prompt; begins a chat where there is none."""
        if self._said is None:
            if not self._can_chat():
                return
            self._begin()
        assert self._said is not None
        self._begin_edit(self._said, TurnChoice("system"))

    def action_go_on(self, side: str) -> None:
        """Lets both sides continue what was said on this one."""
        if self._said is not None and not self._said.alike:
            self._turn_chosen(TurnChoice(side))

    def _begin_edit(self, said: Branches, choice: TurnChoice) -> None:
        messages = said.baseline if choice.side == "baseline" else said.steered
        if choice.action == "system":
            self._editing, content = Edit(0, BOTH, "system"), said.system
        elif choice.place < len(messages):
            one = messages[choice.place]
            self._editing = Edit(choice.place, choice.side, one["role"])
            content = one["content"]
        else:
            return
        self.area.begin_with(content)
        self.area.focus()
        self._show_mode()

    def action_run(self) -> None:
        if self._editing is not None and self._editing.role != "user":
            self._end_edit(self._editing)
        else:
            super().action_run()

    def _end_edit(self, edit: Edit) -> None:
        """Takes up what was edited and asks for no answer."""
        assert self._said is not None
        text = self.area.text.strip()
        try:
            if edit.role == "system":
                said = self._said.with_system(text)
            else:
                said = self._said.edited(edit.place, edit.side, text)
        except UserError as error:
            self.tell(error)
            return
        self.leave_field()
        self._continue(said)
        if edit.role == "system" and said.unanswered().steered[1 if text else 0 :]:
            self.notify(f"{key('steer.run')} answers the last question again")

    def drop_edit(self) -> bool:
        """Leaves the message that is edited as it is; False when none is."""
        if self._editing is None:
            return False
        self._editing, self.area.text = None, ""
        self.leave_field()
        self._show_mode()
        return True

    def _continue(self, said: Branches | None) -> None:
        """From here on this is what was said; None: no chat."""
        if said is None or self._editing is not None:
            self.area.text = ""
        self._said, self._editing, self._unsaid, self._board = said, None, None, None
        self._runs += 1  # nothing that is still written belongs to it
        self._trouble.clear()
        self._share_lines()
        self._show_texts()
        self._show_titles("")
        self._show_mode()
        self._say_empty()
        self.refresh_bindings()

    # What is shown.

    def heard(self) -> str:
        said = self._said
        return "" if said is None else max(map(transcript, (said.baseline, said.steered)), key=len)

    def _show_texts(self) -> None:
        if self._board is not None:
            super()._show_texts()
            return
        said = self._said or Branches()
        for side, messages in zip(SIDES, (said.baseline, said.steered), strict=True):
            turns = turns_of(messages)
            self._text(side).show([Passage(turns=turns)] if turns else [])
            self._text(side).go_to_start()

    def _show_mode(self) -> None:
        """The line over the field: whether it is a message of a chat, and which."""
        line, said, edit = self.query_one("#steer-mode", Static), self._said, self._editing
        words = ""
        if edit is not None:
            what = "the system prompt" if edit.role == "system" else f"message {edit.place + 1}"
            then = "answers it anew" if edit.role == "user" else "takes it up"
            words = f"Edit {what}: {key('steer.run')} {then}"
        if said is not None:
            line.update(Content.assemble(*chat_words(said, words)))
        line.display = said is not None
        self.area.placeholder = _PROMPT if said is None else _MESSAGE
        self.refresh_bindings()

    def _say_empty(self) -> None:
        super()._say_empty()
        self._look_for_template()
        if self._said is not None and self.model_alone is None and self.context.sae_id is None:
            return
        if self._said is not None:
            run = key("steer.run")
            for side, words in zip(SIDES, (f"{run} answers plainly", "and steered"), strict=True):
                self._text(side).say_empty(words)

    # What comes back.

    def chat_state(self) -> dict[str, Any]:
        return {"chat": self._said.as_json()} if self._said is not None else {}

    def restore_chat(self, saved: JsonObject) -> None:
        """Takes up what `chat_state` gave. Raises UserError."""
        chat = saved.object("chat", {})
        if chat.values:
            self._prompt = ""
            self._continue(Branches.from_json(dict(chat.values)))

    def take_up_chat(self, plan: Plan, baseline: str, steered: str) -> None:
        """Goes on from a saved generation."""
        self._editing = self._unsaid = None
        self._prompt = ""
        self._said = None if plan.chat is None else plan.chat.answered(baseline, steered)
        if plan.chat is not None:
            self.area.text = ""
        self._show_mode()
