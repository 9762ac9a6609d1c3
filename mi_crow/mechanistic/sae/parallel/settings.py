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


def check_copies(world: int, copies: int) -> None:
    """Raises UserError for processes that cannot share the latents of so many copies."""
    if world % copies or world == copies > 1:
        raise UserError(
            f"{world} process{'' if world == 1 else 'es'} cannot share the latents of {copies} "
            "copies of an SAE",
            hint="take a multiple of --copies, at least twice as many processes",
        )


def check_latents(n_latents: int, world: int) -> None:
    """Raises UserError for fewer latents than processes that share them."""
    if n_latents < world:
        raise UserError(
            f"{n_latents} latents cannot be split among {world} processes",
            hint="use fewer processes",
        )


def check_pieces(batch_size: int, pieces: int) -> None:
    """Raises UserError for a batch of fewer tokens than it is cut into pieces."""
    if batch_size < pieces:
        raise UserError(
            f"a batch of {batch_size} tokens cannot be split into {pieces} pieces",
            hint="raise the batch size or use fewer processes",
        )


def check_whitened(whitens: bool, world: int) -> None:
    """Raises UserError for several processes of a training that whitens."""
    if whitens and world > 1:
        raise UserError("whitened trainings run in one process", hint="leave out --whiten")
