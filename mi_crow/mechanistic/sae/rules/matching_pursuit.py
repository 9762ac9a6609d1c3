"""Matching pursuit: one latent after the other, each the best for what is left of the token."""

from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.base import (
    LossContext,
    SaeOptions,
    SparseAutoencoder,
    SparseLatents,
    TrainingOutput,
)
from mi_crow.mechanistic.sae.outputs import Weights

_BLOCK_ELEMENTS = 1 << 24  # of the product of residuals and rows that is held at once


class MatchingPursuitSae(SparseAutoencoder):
    """r = x - b_dec; as long as |r| is not below the threshold: i = argmax r . W_dec[i], v =
    ReLU(r . W_dec[i]), z_i += v, r -= v W_dec[i]. A token is done when its set of latents no longer
    grows (`stop_on_duplicate_support`), and after `max_iterations` in any case.

    Mallat and Zhang 1993, "Matching pursuits with time-frequency dictionaries"; as an SAE Costa et
    al. 2025, "From Flat to Hierarchical: Extracting Sparse Representations with Matching Pursuit".
    The files are SAELens's (`saes/matching_pursuit_sae.py`). Latents depend on each other: no
    encoder row gives one alone. There are W_dec [M, d] and b_dec [d] and nothing else. Read only.
    """

    architecture: ClassVar[str] = "matching_pursuit"
    tied: ClassVar[bool] = True
    encoder_tensors: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        n_latents: int,
        n_inputs: int,
        *,
        residual_threshold: float = 1e-2,
        max_iterations: int | None = None,
        stop_on_duplicate_support: bool = True,
        **options: Unpack[SaeOptions],
    ) -> None:
        """`max_iterations` None: as many as there are inputs. Raises UserError for none,
        or a negative threshold."""
        super().__init__(n_latents, n_inputs, **options)
        if max_iterations is not None and max_iterations < 1:
            raise UserError(f"max_iterations must be at least 1, not {max_iterations}")
        if not residual_threshold >= 0:
            raise UserError(f"residual_threshold must be at least 0, not {residual_threshold:g}")
        self.residual_threshold: float = residual_threshold
        self.max_iterations: int = n_inputs if max_iterations is None else max_iterations
        self.stop_on_duplicate_support = stop_on_duplicate_support

    @property
    def encoder_rows(self) -> nn.Parameter:  # pyright: ignore[reportIncompatibleVariableOverride]
        """[M, d]: the decoder's rows, which the first latent of a token is chosen by."""
        return self.W_dec

    @property
    def encoder(self) -> Weights:
        return Weights(self.W_dec, self.W_dec.new_zeros(self.n_latents))

    def config(self) -> dict[str, Any]:
        return {
            "residual_threshold": self.residual_threshold,
            "max_iterations": self.max_iterations,
            "stop_on_duplicate_support": self.stop_on_duplicate_support,
        }

    def weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in self.state_dict().items()}

    def _scaled_tensors(self) -> list[Tensor]:
        return []

    @torch.no_grad()
    def fold_scale(self, scale: float, output_scale: float | None = None) -> None:
        super().fold_scale(scale, output_scale)
        self.residual_threshold /= scale  # the residual is measured in units of the input

    def fold_decoder_norms(self) -> None:
        """Raises UserError: other rows would choose other latents."""
        raise UserError("the rows of a matching_pursuit SAE cannot be rescaled")

    def _encode_rows(self, x: Tensor) -> SparseLatents:
        inputs = self.encoder_input(x)
        block = max(1, _BLOCK_ELEMENTS // self.n_latents)
        parts = [self._pursued(rows) for rows in inputs.split(block)]
        width = max((values.shape[1] for values, _ in parts), default=1)
        return SparseLatents(
            *(
                torch.cat([nn.functional.pad(one, (0, width - one.shape[1])) for one in tensors])
                for tensors in zip(*parts, strict=True)
            )
        )

    def _pursued(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Values [n, w] and latents [n, w] of rows [n, d], w the most that one of them needs."""
        n = len(residual)
        most = min(self.max_iterations, self.n_latents) if self.stop_on_duplicate_support else 0
        most = most or self.max_iterations
        values = residual.new_zeros(n, 0)
        chosen = torch.zeros(n, 0, dtype=torch.int64, device=residual.device)
        done = torch.zeros(n, dtype=torch.bool, device=residual.device)
        for _ in range(most):
            best = (residual @ self.W_dec.t()).relu().max(dim=1)
            value = torch.where(done, 0, best.values)
            residual = residual - value[:, None] * self.W_dec[best.indices]
            # A latent that is chosen again grows; it is not listed twice.
            again = (chosen == best.indices[:, None]) & (values > 0)
            known = again.any(dim=1)
            added = torch.where(known, 0, value)
            values = torch.cat([values + again * value[:, None], added[:, None]], dim=1)
            listed = torch.where(added > 0, best.indices, 0)
            chosen = torch.cat([chosen, listed[:, None]], dim=1)
            if self.stop_on_duplicate_support:
                done = done | known | (value == 0)
            done = done | (torch.linalg.vector_norm(residual, dim=1) < self.residual_threshold)
            if bool(done.all()):
                break
        return values, chosen

    def training_output(self, x: Tensor, target: Tensor, context: LossContext) -> TrainingOutput:
        """Raises UserError: there is no training of this rule here."""
        raise UserError("an SAE of architecture 'matching_pursuit' can be read, not trained")
