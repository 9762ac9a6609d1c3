"""What Concepts opens: coverage, conflicts, the next to name, a check on texts, history, Steer."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mi_crow.errors import UserError
from mi_crow.visible import quoted
from tui import messages
from tui.annotate import may_tag, undo_change, write
from tui.preferences.key_words import key
from tui.screens.concepts.conflicts import ConflictsPopup
from tui.screens.concepts.coverage import CoveragePopup
from tui.screens.concepts.history import HistoryPopup, Past
from tui.screens.concepts.marking import ConceptMarkScreen

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations
    from mi_crow.mechanistic.concepts.conflicts import Conflict
    from mi_crow.mechanistic.features.queries import FeatureStore
    from tui.screens.concepts.rows import ConceptsRead

MOST_IN_GROUP = 4096  # features of one target
LOOKING = ("coverage", "conflicts", "unnamed")
NEXT_QUERY = "named:no sort:value"


class ConceptLookScreen(ConceptMarkScreen):
    """The actions of Concepts that look beyond its list."""

    _read: "ConceptsRead | None"
    _search: str

    def action_coverage(self) -> None:
        found = self._read.coverage if self._read is not None else None
        if found is None:
            self.tell(UserError("the open SAE has no feature index", hint="the index says it"))
        else:
            self.app.push_screen(CoveragePopup(found))

    async def action_unnamed(self) -> None:
        await self.mi_crow.go("features", messages.ShowQuery(NEXT_QUERY))

    async def action_compare(self) -> None:
        """Which features tell two sets of texts apart: the list can be tagged and steered by."""
        await self.mi_crow.go("inspect", messages.CompareTexts())

    # Conflicts.

    def action_conflicts(self) -> None:
        store, sae_id = self.context.features, self.context.sae_id
        if store is None or sae_id is None:
            return

        def show(found: "Sequence[Conflict]") -> None:
            self.app.push_screen(ConflictsPopup(found), self._conflict_chosen)

        folder = self.context.workspace.saes_dir / sae_id
        read = partial(_conflicts, store, folder, sae_id)
        self.in_thread(read, show, group="conflicts", opens=True)

    async def _conflict_chosen(self, chosen: "tuple[str, Conflict] | None") -> None:
        if chosen is None:
            return
        what, conflict = chosen
        if what == "open":
            await self.mi_crow.go("features", messages.OpenFeature(conflict.features[0]))
        elif may_tag(self.mi_crow) and self.context.sae_id is not None:
            write(self.mi_crow, partial(_merge, self.context.sae_id, conflict))

    # Steering.

    async def action_steer(self) -> None:
        marked, concept = self._chosen, self._concept
        features = list(dict.fromkeys(one.feature for one in marked))
        if len(features) > MOST_IN_GROUP:
            said = f"{len(features):,} features are too many for one group"
            self.tell(UserError(said, hint=f"mark at most {MOST_IN_GROUP:,}"))
        elif len(features) > 1:
            group = "group:" + "+".join(map(str, features))
            await self._to_steer(features[0], group)
        elif concept is not None:
            await self.mi_crow.go("steer", messages.SendToSteer(concept.feature, concept.sae_id))

    def action_steer_tag(self) -> None:
        """Asks for a tag: first the one that the list is filtered by, else that of the line."""
        tags = sorted({tag for one in self._concepts for tag in one.tags})
        if not tags:
            hint = f"{key('concepts.tags')} tags the marked ones"
            self.tell(UserError("no concept has a tag", hint=hint))
            return
        concept, shown = self._concept, self._search.removeprefix("#")
        own = concept.tags if concept is not None else ()
        first = shown if shown in tags else next(iter(own), "")

        def refuse(text: str) -> str:
            return "" if _tag_in(text) in tags else f"no concept has the tag {quoted(text)}"

        self.prompt.ask(
            "steer_tag",
            "steer by the tag",
            first,
            suggestions=tags,
            placeholder=", ".join(tags),
            hint="enter steers · esc cancels",
            refuse=refuse,
            select=True,
        )

    async def steer_by_tag(self, tag: str) -> None:
        """Puts all features of a tag on the stack as one target."""
        tag = _tag_in(tag)
        found = [one.feature for one in self._concepts if tag in one.tags]
        if found:
            await self._to_steer(found[0], f"tag:{tag}")
        else:
            self.tell(UserError(f"no concept has the tag {quoted(tag)}"))

    async def _to_steer(self, feature: int, group: str) -> None:
        message = messages.SendToSteer(feature, self.context.sae_id, group=group)
        await self.mi_crow.go("steer", message)

    # A check on texts.

    def action_check(self) -> None:
        concept = self._concept
        if concept is not None:
            self._checked = concept
            self.prompt.ask(
                "check",
                f"check #{concept.feature} on",
                placeholder="a text with [[places]] where it should fire, or a file",
                keeps_lines=True,
            )

    def check_on(self, text: str) -> None:
        """Has the session run the texts through the model, and shows where the feature fires."""
        from tui.screens.concepts.checking import CheckPopup

        concept, context = self._checked, self.context
        if concept is None or not text:
            return

        def work() -> Mapping[str, Any]:
            from mi_crow.mechanistic.vectors.texts import parted

            client = context.ready_session(concept.sae_id)
            return client.call("check", feature=concept.feature, words=parted(text))

        def show(found: Mapping[str, Any]) -> None:
            self.app.push_screen(CheckPopup(concept.name, found))

        self.notify("Checking; the model is loaded first when it has to be")
        self.in_thread(work, show, group="check", opens=True, slow=True)

    # History.

    def action_history(self) -> None:
        sae_id, annotations = self.context.sae_id, self.context.annotations
        concept = self._concept
        feature = concept.feature if concept is not None else None

        def read() -> list[Past]:
            kinds = [Past("everything", annotations.past_changes())]
            if sae_id is not None:
                kinds.insert(0, Past(sae_id, annotations.past_changes(sae_id=sae_id)))
            if feature is not None:
                changes = annotations.past_changes(sae_id=sae_id, feature=feature)
                kinds.append(Past(f"feature {feature}", changes))
            return kinds

        def show(kinds: "Sequence[Past]") -> None:
            self.app.push_screen(HistoryPopup(kinds, annotations.actor), self._undo_change)

        self.in_thread(read, show, group="history", opens=True)

    def _undo_change(self, change: int | None) -> None:
        if change is not None:
            write(self.mi_crow, partial(undo_change, change))


def _tag_in(text: str) -> str:
    return text.strip().removeprefix("#").strip()


def _conflicts(store: "FeatureStore", folder: Any, sae_id: str) -> "list[Conflict]":
    from mi_crow.errors import NotFoundError
    from mi_crow.mechanistic.concepts.conflicts import find_conflicts
    from mi_crow.mechanistic.features.similar import DecoderRows

    try:
        decoder = DecoderRows.open(folder, sae_id)
    except NotFoundError:
        decoder = None
    return find_conflicts(store, decoder)


def _merge(sae_id: str, conflict: "Conflict", annotations: "Annotations") -> str:
    from mi_crow.mechanistic.concepts.conflicts import merge_names

    name = conflict.names[0]
    count = merge_names(annotations, sae_id, conflict.features, name, only_while=name)
    return f"{count} features are {quoted(name)}; {key('app.undo')} undoes"
