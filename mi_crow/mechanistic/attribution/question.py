"""What an attribution is asked for, in a person's words. Torch-free."""

from dataclasses import dataclass

from mi_crow.errors import UserError


@dataclass(frozen=True)
class Question:
    """What is to be explained, as a person says it. Without a target it is the likeliest next
    token."""

    target: str | None = None  # a token's text
    against: str | None = None
    log_probability: bool = False
    raw_logit: bool = False  # the logit itself, not what it is above the mean of all logits
    feature: str | None = None  # SAE/NUMBER, or NUMBER of the last SAE given
    position: int | None = None  # None: the last token, or where the feature is strongest
    own_token: bool = False  # the target is the text's own next token, where it has one
    top: int = 20
    steps: int | None = None  # of integrated gradients
    prune: float = 0.02
    seed: int = 0
    bos: str = "auto"
    windows: bool = False  # read a text longer than the context in windows

    def __post_init__(self) -> None:
        is_feature, is_difference = self.feature is not None, self.against is not None
        wrong = (
            (is_feature and self.target is not None, "--feature and --target"),
            (is_feature and is_difference, "--feature and --against"),
            (is_feature and self.log_probability, "--feature and --log-prob"),
            (is_feature and self.raw_logit, "--feature and --raw-logit"),
            (is_difference and self.log_probability, "--against and --log-prob"),
            (is_difference and self.raw_logit, "--against and --raw-logit"),
            (self.log_probability and self.raw_logit, "--log-prob and --raw-logit"),
        )
        for is_wrong, what in wrong:
            if is_wrong:
                raise UserError(f"{what} do not go together", hint="leave out one of them")
        if is_difference and self.target is None:
            raise UserError("--against needs a --target", hint='e.g. --target " Paris"')
        if self.steps is not None and self.steps < 1:
            raise UserError("integrated gradients need at least one step", hint="e.g. --steps 16")
