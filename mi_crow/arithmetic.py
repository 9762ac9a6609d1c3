"""How torch computes in our processes: one place for what holds for jobs, ranks and sessions."""


def settle_arithmetic(*, exact: bool = False) -> None:
    """Products in fp32 are products in fp32, also on CUDA, where torch could be told, by a library
    or an environment variable, to round their factors to TF32.

    That chooses other latents on 1% of the tokens (`tests/benchmarks/rounding.py`). What is to be
    fast is in bf16 instead: models, the training's products, and the encoder's with its candidates
    looked at again in fp32, which chooses others on 0.01%.

    Denormals are flushed to zero, unless `exact`: on CPU they slow down the tails of a softmax or
    an optimizer a hundredfold.
    """
    import torch

    torch.set_float32_matmul_precision("highest")
    if not exact:
        torch.set_flush_denormal(True)
