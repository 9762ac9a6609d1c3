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
    feature: str | None = None  # SAE/NUMBER, or NUMBER of the last SAE given
    position: int | None = None  # None: the last token, or where the feature is strongest
    own_token: bool = False  # the target is the text's own next token, where it has one
    top: int = 20
    steps: int | None = None  # of integrated gradients
    prune: float = 0.02
    seed: int = 0
    bos: str = "auto"

    def __post_init__(self) -> None:
        wrong = (
            (self.feature is not None and self.target is not None, "a feature and a token"),
            (self.against is not None and self.target is None, "--against without a target"),
            (self.against is not None and self.log_probability, "a difference of log probability"),
            (self.feature is not None and self.log_probability, "a feature's log probability"),
        )
        for is_wrong, what in wrong:
            if is_wrong:
                raise UserError(
                    f"{what} cannot be explained",
                    hint='give --target " Paris", and --against " Rome" or --log-prob with it, or '
                    "--feature SAE/NUMBER",
                )
        if self.steps is not None and self.steps < 1:
            raise UserError("integrated gradients need at least one step", hint="e.g. --steps 16")
