"""What a training may ask of the decoder's rows besides their length: orthogonality, alignment."""

import torch
from torch import Tensor
from torch.nn import functional

# Rows that are compared with one another: all pairs of M rows would cost M^2 products, and other
# rows are together in every step.
CHUNK = 1024


def orthogonality_loss(decoder: Tensor, seed: int, step: int, chunk: int = CHUNK) -> Tensor:
    """Mean over the rows of `decoder` [M, n_outputs], of length one, of the square of the cosine
    with the row of the same chunk that is most alike: max over j of cos(d_i, d_j)^2. A scalar.

    Korznikov et al. 2025, "OrtSAE: Orthogonal sparse autoencoders uncover atomic features": rows
    are put into chunks at random in each step (decided by `seed` and `step`), so that the cost
    grows with M and not with its square.
    """
    rows = len(decoder)
    if rows < 2:
        return decoder.new_zeros(())
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    order = torch.randperm(rows, generator=generator)
    if decoder.is_cuda:  # from other memory the copy would wait for all that was begun before it
        order = order.pin_memory()
    order = order.to(decoder.device, non_blocking=True)
    nearest = torch.empty_like(order)
    with torch.no_grad(), torch.autocast(decoder.device.type, enabled=False):
        for part in order.tensor_split(-(-rows // chunk)):
            own = decoder.detach()[part]
            cosines = (own @ own.T).square_().fill_diagonal_(-1)
            nearest[part] = part[cosines.argmax(1)]
    # Only the nearest pairs have a gradient: their rows are gathered, no [M, M] is differentiated.
    # Several rows may share their nearest, whose gradients `embedding` adds up in a fixed order:
    # those of `index_select` differ from run to run on CUDA.
    return torch.linalg.vecdot(decoder, functional.embedding(nearest, decoder)).square().mean()


@torch.no_grad()
def align_encoder(encoder: Tensor, decoder: Tensor) -> None:
    """Moves encoder rows [M, d] along the decoder's rows of length one, in place and as little as
    possible, so that the inner product of each pair is one.

    The constraint of Brzozowski and Chung 2026, "Aligned training: A parameter-free method to
    improve feature quality and stability of sparse autoencoders", held by a projection after each
    step.
    """
    missing = 1 - torch.linalg.vecdot(encoder, decoder)
    encoder.addcmul_(decoder, missing[:, None])
