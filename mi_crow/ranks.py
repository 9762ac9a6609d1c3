"""Ranks: the processes that share one piece of work, as torchrun starts them.

Work that can be split takes a `Ranks`. Torch is imported only where processes really meet.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from mi_crow.errors import MiCrowError, UserError

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

JOIN_TIMEOUT = timedelta(minutes=15)  # a rank may start that much later than another
WAIT_TIMEOUT = timedelta(hours=24)  # for a slower rank; one that died is noticed at once
_WHERE = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Ranks(Protocol):
    """The processes of one piece of work, as one of them sees it."""

    @property
    def rank(self) -> int:
        """Which one this is: 0 to world - 1."""
        ...

    @property
    def world(self) -> int:
        """How many there are."""
        ...

    def agree(self, value: Any) -> Any:
        """Rank 0's JSON value on every rank, as JSON gives it back (a tuple is a list then).

        All ranks call it, in the same order; what the others pass does not matter. Raises
        RankLostError when one of them is gone.
        """
        ...

    def wait(self) -> None:
        """Returns when every rank has come here. Raises RankLostError when one is gone."""
        ...

    def is_first(self, what: str) -> bool:
        """True on the one rank that asks this first; also when nobody is left to be second."""
        ...


class RankLostError(MiCrowError):
    """Another rank has ended or does not answer; why is known only there."""


class Alone:
    """One process that has nobody to wait for."""

    rank = 0
    world = 1

    def agree(self, value: Any) -> Any:
        return json.loads(json.dumps(value))

    def wait(self) -> None:
        pass

    def is_first(self, what: str) -> bool:
        return True


ALONE = Alone()


class TorchRanks:
    """The ranks of torch.distributed; they talk over TCP (gloo), on CUDA too."""

    def __init__(self, rank: int, world: int, store: "Store") -> None:
        self.rank: int = rank
        self.world: int = world
        self._store = store

    @classmethod
    def join(cls) -> "TorchRanks":
        """Meets the other ranks that the environment names. Raises RankLostError."""
        import torch.distributed as dist
        from torch.distributed.distributed_c10d import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        with _losses("the processes of this run could not meet"):
            store, rank, world = next(rendezvous("env://", timeout=JOIN_TIMEOUT))
            dist.init_process_group(
                "gloo",
                store=PrefixStore("mi-crow", store),
                rank=rank,
                world_size=world,
                timeout=WAIT_TIMEOUT,
            )
            return cls(rank, world, store)

    def agree(self, value: Any) -> Any:
        import torch
        import torch.distributed as dist

        words = json.dumps(value).encode() if self.rank == 0 else b""
        size = torch.tensor([len(words)])
        with _losses():
            dist.broadcast(size, 0)
            told = torch.empty(int(size), dtype=torch.uint8)
            if self.rank == 0:
                told = torch.frombuffer(bytearray(words), dtype=torch.uint8)
            dist.broadcast(told, 0)
        return json.loads(told.numpy().tobytes())

    def wait(self) -> None:
        import torch.distributed as dist

        with _losses():
            dist.barrier()

    def is_first(self, what: str) -> bool:
        try:
            return self._store.add(f"mi-crow-first/{what}", 1) == 1
        except RuntimeError:
            return True

    def leave(self) -> None:
        """Closes the connections."""
        import torch.distributed as dist

        dist.destroy_process_group()


@contextmanager
def ranks_from_environment() -> Iterator[Ranks]:
    """The ranks that torchrun's environment names, joined until the block ends; else `ALONE`.

    A block that ends well waits for the other ranks, one that fails does not. Raises
    RankLostError when another rank is gone.
    """
    if not is_launched() or launched_world() == 1:
        yield ALONE
        return
    ranks = TorchRanks.join()
    try:
        yield ranks
        ranks.wait()  # who leaves early would take unread words along
    finally:
        ranks.leave()


def is_launched() -> bool:
    """True when torchrun, or what speaks like it, started this process."""
    return all(os.environ.get(name) for name in _WHERE)


def launched_rank() -> int:
    """This process's rank in the environment; 0 when nobody launched it."""
    return _number("RANK", 0) if is_launched() else 0


def launched_world() -> int:
    """How many processes were launched together."""
    return _number("WORLD_SIZE", 1) if is_launched() else 1


def take_device(asked: str) -> str:
    """The device of this rank for the one that was asked for; a GPU becomes torch's current one.

    `auto` and `cuda` are the GPU with the rank's number on this machine. Raises UserError for
    fewer GPUs than processes, and for a device that cannot be shared.
    """
    world = _number("LOCAL_WORLD_SIZE", launched_world()) if is_launched() else 1
    check_shared_device(asked, world)
    if world == 1 or asked == "cpu":
        return asked
    import torch

    count = torch.cuda.device_count()
    if asked == "auto" and count == 0:
        return "cpu"
    index = _number("LOCAL_RANK", launched_rank())
    if index >= count:
        raise UserError(
            f"{world} processes need {world} GPUs, there {'is' if count == 1 else 'are'} "
            f"{count or 'none'}",
            hint=f"--nproc {count}" if count else "use --device cpu",
        )
    torch.cuda.set_device(index)
    return f"cuda:{index}"


def check_shared_device(device: str, world: int) -> None:
    """Raises UserError for a device that `world` processes cannot share."""
    if world > 1 and device not in ("auto", "cpu", "cuda"):
        raise UserError(
            f"{world} processes cannot share the device {device!r}",
            hint="use --device cuda (a GPU each), cpu or auto",
        )


def _number(name: str, otherwise: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else otherwise


@contextmanager
def _losses(
    message: str = "another process of this run has ended or does not answer",
) -> Iterator[None]:
    """Torch says in many ways that a connection broke; we say it in one."""
    try:
        yield
    except (RuntimeError, OSError) as error:  # torch's DistError is a RuntimeError
        raise RankLostError(message, hint="its own log says why") from error
