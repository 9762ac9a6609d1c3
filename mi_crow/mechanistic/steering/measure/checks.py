"""What can be refused before a measurement starts: no model is loaded. Torch-free."""

from collections.abc import Sequence

from mi_crow.errors import UserError
from mi_crow.language_model.endpoint import Endpoint
from mi_crow.mechanistic.steering.fits import all_maxima, check_stack, looked_up
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.measure.aims.described import (
    features_described,
    texts_described,
)
from mi_crow.mechanistic.steering.measure.aims.detectors import detectors_of
from mi_crow.mechanistic.steering.measure.config import (
    AutoConfig,
    Judging,
    Rating,
    ScoresConfig,
    SweepConfig,
)
from mi_crow.mechanistic.steering.measure.controls import of_other_saes
from mi_crow.mechanistic.steering.measure.indexed import Indexed
from mi_crow.mechanistic.steering.measure.judges import compiled_pattern
from mi_crow.mechanistic.steering.measure.ratings import Rater
from mi_crow.mechanistic.steering.measure.recipes import recipes_named
from mi_crow.store.workspace import Workspace, read_sae_summary

_TRIED = 3  # features of a description, of which the one that steers is taken


def check_sweep(workspace: Workspace, config: SweepConfig) -> None:
    """Raises UserError or NotFoundError for a sweep that would fail; no model is loaded."""
    indexed = Indexed.open(workspace, config.sae_id)
    check_stack(workspace, config.stack(), config.sae_id)
    stack = looked_up(workspace, config.stack(), config.sae_id)
    for one in stack:
        for feature in features_of(one, config.sae_id):
            indexed.check_feature(feature)
    all_maxima(workspace, config.sae_id, stack)
    if config.trial.control:
        of_other_saes(workspace, stack, config.sae_id, config.trial.seed)
    judging = judging_of(workspace, indexed, config.judging, stack, config.sae_id)
    _check_judging(indexed, judging)
    rater_of(config.rating, judging.label, judging.description)


def judging_of(
    workspace: Workspace,
    indexed: Indexed,
    judging: Judging,
    stack: Sequence[Intervention],
    sae_id: str,
) -> Judging:
    """The judge that is asked for. Without one, and where no feature of the SAE is steered, what a
    vector of the stack was made for: a label of the indexed texts, or the feature of a search.

    Raises UserError where nothing says what the texts should be about.
    """
    if judging != Judging() or any(features_of(one, sae_id) for one in stack):
        return judging
    for one in stack:
        if one.enabled and one.aim.kind == "vector":
            label, feature = made_for(workspace, one.aim.name, sae_id)
            if label in indexed.texts.labels:
                return Judging(label=label)
            if feature is not None:
                return Judging(feature=feature)
    raise UserError(
        "nothing says what the texts should be about, as no feature is steered",
        hint="give a label, a description, a feature to judge by or a regular expression",
    )


def made_for(workspace: Workspace, vector: str, sae_id: str) -> tuple[str | None, int | None]:
    """The label, or the feature of an SAE, that a vector was made for; None for what is not known.
    Raises NotFoundError without the vector."""
    from mi_crow.mechanistic.vectors.stored import read_summary, vector_path

    made = read_summary(vector_path(workspace, vector)).made
    of, texts = made.get("of"), made.get("for")
    if isinstance(of, dict) and of.get("sae") == sae_id:
        label, feature = of.get("label"), of.get("feature")
        told = label if isinstance(label, str) else None
        return told, feature if isinstance(feature, int) else None
    if isinstance(texts, list) and len(texts) == 1 and str(texts[0]).startswith("label:"):
        return str(texts[0]).removeprefix("label:").strip(), None
    return None, None


def check_auto(workspace: Workspace, config: AutoConfig) -> None:
    """Raises UserError or NotFoundError for a search that would fail; no model is loaded."""
    recipes_named(config.recipes)
    if read_sae_summary(workspace.sae_dir(config.sae_id)).models:
        raise UserError(
            f"SAE {config.sae_id!r} reads two models: how active its features are, which a search "
            "goes by, is not known while one of them writes",
            hint="measure strengths of a feature that is added: steer evaluate --sweep",
        )
    indexed = Indexed.open(workspace, config.sae_id)
    indexed.check_feature(features_for(indexed, config)[0])
    _check_judging(indexed, config.judging)
    rater_of(config.rating, config.label, config.description)
    if len(config.trial.prompts) == 1:
        raise UserError(
            "one prompt cannot be both for the search and for the report", hint="give two or more"
        )


def check_scores(workspace: Workspace, config: ScoresConfig) -> None:
    """Raises UserError or NotFoundError for an SAE whose features cannot be scored."""
    Indexed.open(workspace, config.sae_id).promoted()


def features_for(indexed: Indexed, config: AutoConfig) -> tuple[int, ...]:
    """The feature that is asked for, or those that tell a label best on training documents, the
    likeliest to steer first, or those that a description is about.

    Raises NotFoundError for an unknown label, UserError where no feature tells it.
    """
    if config.feature is not None:
        return (config.feature,)
    if config.description is not None:
        described = features_described(indexed.store, indexed.texts, config.description)
        return tuple(one.feature for one in described[:_TRIED])
    assert config.label is not None
    indexed.texts.check_label(config.label)
    found = detectors_of(indexed.store, config.label)
    if not found:
        raise UserError(f"no feature predicts label {config.label!r}", hint="give a --feature")
    return found


def rater_of(
    rating: Rating | None, label: str | None, description: str | None = None
) -> Rater | None:
    """The rater that is asked for. Raises UserError where nothing says what it should look for."""
    if rating is None:
        return None
    named = (label or "").rpartition(":")[2].strip()
    concept = rating.concept.strip() or named or (description or "").strip()
    if not concept:
        raise UserError(
            "the judge must know what texts should be about", hint="--concept 'stormy weather'"
        )
    endpoint = Endpoint(rating.endpoint, rating.model, rating.timeout_s)
    return Rater(endpoint, concept, rating.parallel)


def features_of(one: Intervention, sae_id: str) -> list[int]:
    """The features of SAE `sae_id` that an intervention changes, its rivals apart."""
    return [feature for feature, _ in one.features] if one.sae in (None, sae_id) else []


def _check_judging(indexed: Indexed, judging: Judging) -> None:
    if judging.label is not None:
        indexed.texts.check_label(judging.label)
    if judging.feature is not None:
        indexed.check_feature(judging.feature)
    if judging.description is not None:
        texts_described(indexed.texts, judging.description)
    if judging.pattern is not None:
        compiled_pattern(judging.pattern)
