"""Whether interventions fit the workspace, in one sentence; what tags and maxima mean there.
Torch-free: screens and the command line ask before a model is loaded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mi_crow.errors import NotFoundError, UserError, nearest
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.targets import Target, group_of, read_target
from mi_crow.store.workspace import SaeSummary, Workspace, read_sae_summary


def check_stack(workspace: Workspace, stack: Sequence[Intervention], sae_id: str | None) -> None:
    """Raises UserError or NotFoundError in one sentence for an intervention that does not fit: an
    SAE that is not there, or of another model than `sae_id`, a feature out of range, a tag that no
    feature has, a vector that is not there or of another model. What is switched off is not looked
    at."""
    check = _Check(workspace, sae_id)
    for one in stack:
        if one.enabled:
            check(one)


class _Check:
    def __init__(self, workspace: Workspace, sae_id: str | None) -> None:
        self._workspace, self._own = workspace, sae_id
        self._saes: dict[str, SaeSummary] = {}
        self._vectors: set[str] = set()

    def __call__(self, one: Intervention) -> None:
        for target in (one.aim, *((read_target(one.rivals),) if one.rivals else ())):
            if target.of_sae:
                sae = self._sae(target.sae or one.sae, target.describe())
                if target.kind == "tag":
                    tagged(self._workspace, sae.sae_id, target.name)
                for feature, _ in target.features:
                    self._check_feature(feature, sae)
        if one.aim.kind == "vector":
            self._check_vector(one.aim.name)
        condition = one.condition
        if condition is not None and condition.vector is not None:
            self._check_vector(condition.vector)
        elif condition is not None and condition.feature is not None:
            what = f"condition {condition.describe()}"
            self._check_feature(condition.feature, self._sae(condition.sae or one.sae, what))

    def _sae(self, sae_id: str | None, what: str) -> SaeSummary:
        name = sae_id or self._own
        if name is None:
            raise _no_sae(what)
        if name not in self._saes:
            self._saes[name] = read_sae_summary(self._workspace.sae_dir(name))
            if self._own is not None and name != self._own:
                self._check_model(f"SAE {name!r}", self._saes[name])
        return self._saes[name]

    @staticmethod
    def _check_feature(feature: int, sae: SaeSummary) -> None:
        if feature >= sae.n_latents:
            raise no_feature(feature, sae.sae_id, sae.n_latents)

    def _check_model(self, what: str, other: SaeSummary) -> None:
        own = self._sae(self._own, what)
        same = same_model(own.model_id, own.tokenizer_hash, other.model_id, other.tokenizer_hash)
        if not same:
            raise other_model(what, other.model_id, own.model_id)

    def _check_vector(self, name: str) -> None:
        if name in self._vectors:
            return
        from mi_crow.mechanistic.vectors.stored import read_summary, vector_path

        vector = read_summary(vector_path(self._workspace, name))
        if self._own is not None:
            own = self._sae(self._own, f"vector {name!r}")
            hashed = vector.made.get("tokenizer_hash")
            known = own.model_id, own.tokenizer_hash, vector.model_id, hashed
            if not same_model(*known):
                raise other_model(f"vector {name!r}", vector.model_id, own.model_id)
        self._vectors.add(name)


def same_model(name: str, tokenizer: str | None, other: str, other_tokenizer: str | None) -> bool:
    """Whether two names may mean one model: one can have several, with one tokenizer."""
    if tokenizer is not None and other_tokenizer is not None:
        return tokenizer == other_tokenizer
    return not name or not other or name == other


def other_model(what: str, model_id: str, own: str) -> UserError:
    """The error for an SAE or a vector of another model."""
    return UserError(
        f"{what} is of model {model_id!r}, this runs on {own!r}",
        hint="take one that was made from the same model",
    )


def needs_own_sae(stack: Sequence[Intervention]) -> bool:
    """Whether something in a stack is about features that do not say of which SAE they are."""

    def open_ended(one: Intervention) -> bool:
        condition = one.condition
        targets = (one.aim, *((read_target(one.rivals),) if one.rivals else ()))
        conditional = condition is not None and condition.feature is not None
        return any(target.of_sae and target.sae is None for target in targets) or (
            conditional and condition is not None and condition.sae is None
        )

    return any(one.enabled and one.sae is None and open_ended(one) for one in stack)


def looked_up(
    workspace: Workspace, stack: Sequence[Intervention], sae_id: str | None
) -> list[Intervention]:
    """The stack with the features that its tags mean now; `sae_id` is meant where an SAE is left
    out. Raises NotFoundError for a tag that no feature has, UserError for one without an SAE."""
    return [_looked_up(workspace, one, sae_id) for one in stack]


def _looked_up(workspace: Workspace, one: Intervention, sae_id: str | None) -> Intervention:
    rivals = read_target(one.rivals) if one.rivals else None
    if rivals is not None and rivals.kind == "tag":
        named = _named(rivals, one.sae or sae_id)
        own = {feature for feature, _ in _features(workspace, one.aim, named)}
        found = [f for f in tagged(workspace, named, rivals.name) if f not in own]
        if not found:
            raise UserError(f"all features of {rivals.text} are the target", hint="name others")
        one = replace(one, rivals=group_of(tuple((f, 1.0) for f in found)).text)
    if one.aim.kind != "tag":
        return one
    features = tuple(_features(workspace, one.aim, _named(one.aim, one.sae or sae_id)))
    return replace(one, target=group_of(features, one.sae).text)


def _named(target: Target, sae_id: str | None) -> str:
    """The SAE that is meant. Raises UserError without one."""
    if sae_id is None:
        raise _no_sae(target.describe())
    return sae_id


def _no_sae(what: str) -> UserError:
    return UserError(f"{what} does not name its SAE", hint="write my-sae/42")


def _features(workspace: Workspace, target: Target, sae_id: str) -> Iterator[tuple[int, float]]:
    if target.kind == "tag":
        yield from ((feature, 1.0) for feature in tagged(workspace, sae_id, target.name))
    else:
        yield from target.features


def tagged(workspace: Workspace, sae_id: str, tag: str) -> list[int]:
    """The features of an SAE that are called `tag` or have it as a tag, by number. Raises
    NotFoundError where there are none."""
    from mi_crow.mechanistic.concepts.annotations import Annotations

    concepts = []
    if workspace.annotations_path.exists():
        annotations = Annotations(workspace.annotations_path)
        try:
            concepts = annotations.concepts(sae_id)
        finally:
            annotations.close()
    bare = tag.lstrip("#").strip()  # as tags are kept
    found = sorted({one.feature for one in concepts if tag == one.name or bare in one.tags})
    if not found:
        known = {name for one in concepts for name in (one.name, *one.tags)}
        hint = f"there is {nearest(tag, sorted(known))}" if known else "name features first"
        raise NotFoundError(f"no feature of SAE {sae_id!r} has tag {tag!r}", hint=hint)
    return found


def feature_maxima(
    workspace: Workspace, sae_id: str, interventions: Sequence[Intervention]
) -> dict[int, float]:
    """The greatest activation, from the index, of each feature of `sae_id`, or of an SAE that is
    left out, that is measured by it.

    Raises NotFoundError without the index or the feature, UserError for one that never fires.
    """
    return all_maxima(workspace, sae_id, interventions).get(sae_id, {})


def all_maxima(
    workspace: Workspace, sae_id: str | None, interventions: Sequence[Intervention]
) -> dict[str, dict[int, float]]:
    """The same for each SAE that the interventions are about; `sae_id` is meant where it is left
    out."""
    wanted: dict[str, set[int]] = {sae_id: set()} if sae_id is not None else {}
    for one in interventions:
        for named, feature in one.uses_maxima if one.enabled else ():
            known = named or sae_id
            if known is None:
                raise _no_sae(f"feature {feature}")
            wanted.setdefault(known, set()).add(feature)
    return {
        found: _maxima(workspace, found, sorted(features)) for found, features in wanted.items()
    }


def _maxima(workspace: Workspace, sae_id: str, wanted: list[int]) -> dict[int, float]:
    workspace.sae_dir(sae_id)
    if not wanted:
        return {}
    from mi_crow.mechanistic.features.queries import FeatureStore

    maxima = {row.feature: row.max_act for row in FeatureStore.open(workspace, sae_id).rows(wanted)}
    for feature, value in maxima.items():
        if not value:
            raise UserError(
                f"feature {feature} never fires in the index",
                hint="give its strength in latent units, e.g. +8",
            )
    return maxima


def no_feature(feature: int, sae_id: str, n_latents: int) -> UserError:
    """The error for a number that an SAE has no feature of."""
    return UserError(
        f"'feature:{feature}' is not a feature of SAE {sae_id!r}",
        hint=f"it has features 0 to {n_latents - 1}",
    )
