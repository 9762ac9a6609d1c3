"""What several processes of a training share out among them; torch-free."""

from mi_crow.errors import UserError

SHARES = ("tokens", "latents")  # see sharing.py
GRADIENTS = ("fp32", "bf16")  # what they send them in


def check_shares(shares: str, copies: int) -> None:
    """Raises UserError for what cannot be shared, and for copies of what is not."""
    if shares not in SHARES:
        raise UserError(
            f"{shares!r} cannot be shared among processes", hint=f"use {' or '.join(SHARES)}"
        )
    if copies > 1 and shares != "latents":
        what = "copies are of an SAE whose latents are shared"
        raise UserError(what, hint="add --share latents")
