"""What building a feature index needs to know; plain data, torch-free."""

from dataclasses import dataclass

from mi_crow.errors import UserError


@dataclass(frozen=True)
class IndexConfig:
    """One index: which SAE over which runs, and how much is kept a feature."""

    sae_id: str
    run_id: str | None = None  # None: the run the SAE was trained on
    append: bool = False
    top_examples: int = 20
    bands: int = 4  # quantile bands below the top
    band_examples: int = 5
    window: int = 32  # tokens either side of an example
    top_logits: int = 20
    neighbours: int = 10
    coactivations: int = 10
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.top_examples < 1:
            raise UserError(f"top examples must be at least 1, not {self.top_examples}")
