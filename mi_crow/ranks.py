"""Ranks: the processes that share one job, as torchrun starts them.

Work that can be split takes a `Ranks`. Torch is imported only where several processes connect.
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

JOIN_TIMEOUT = timedelta(minutes=15)  # a rank may start this much later than another
WAIT_TIMEOUT = timedelta(hours=24)  # for a slower rank; one that died is noticed at once
_WHERE = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Ranks(Protocol):
    """The processes of one job, as one of them sees it."""

    @property
    def rank(self) -> int:
        """This process's number: 0 to world - 1."""
        ...

    @property
    def world(self) -> int:
        """The number of processes."""
        ...

    def agree(self, value: Any) -> Any:
        """Rank 0's JSON value on every rank, as JSON returns it (a tuple becomes a list).

        All ranks call it, in the same order; the values of the others are ignored. Raises
        RankLostError when one of them is gone.
        """
        ...

    def wait(self) -> None:
        """Returns when every rank has called it. Raises RankLostError when one is gone."""
        ...

    def is_first(self, what: str) -> bool:
        """True on the rank that asks first; also when the other ranks are gone."""
        ...


class RankLostError(MiCrowError):
    """Another rank has ended or does not answer; only its own log knows why."""


class Alone:
    """A single process."""

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
    """The ranks of torch.distributed; they communicate over TCP (gloo), on CUDA too."""

    def __init__(self, rank: int, world: int, store: "Store", also_nccl: bool = False) -> None:
        self.rank: int = rank
        self.world: int = world
        self._store, self._also_nccl = store, also_nccl

    @classmethod
    def join(cls, *, on_devices: bool = False) -> "TorchRanks":
        """Connects to the other ranks named by the environment; with `on_devices` also so that GPUs
        exchange what is on them. Raises RankLostError."""
        import torch
        import torch.distributed as dist
        from torch.distributed.distributed_c10d import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        with _losses("the processes of this run could not connect"):
            store, rank, world = next(rendezvous("env://", timeout=JOIN_TIMEOUT))
            nccl = on_devices and torch.cuda.is_available()
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if nccl else "gloo",
                store=PrefixStore("mi-crow", store),
                rank=rank,
                world_size=world,
                timeout=WAIT_TIMEOUT,
            )
            return cls(rank, world, store, nccl)

    def agree(self, value: Any) -> Any:
        import torch
        import torch.distributed as dist

        words = json.dumps(value).encode() if self.rank == 0 else b""
        size = torch.tensor([len(words)])
        with _losses():
            dist.broadcast(size, 0)
            content = torch.empty(int(size), dtype=torch.uint8)
            if self.rank == 0:
                content = torch.frombuffer(bytearray(words), dtype=torch.uint8)
            dist.broadcast(content, 0)
        return json.loads(content.numpy().tobytes())

    def wait(self) -> None:
        import torch.distributed as dist

        with _losses():
            if self._also_nccl:  # whose barrier is on the GPU, and is not needed here
                import torch

                dist.all_reduce(torch.zeros(1))
            else:
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
def ranks_from_environment(*, on_devices: bool = False) -> Iterator[Ranks]:
    """The ranks named by torchrun's environment, connected until the block ends; else `ALONE`.
    `on_devices`: see `TorchRanks.join`.

    A block that succeeds waits for the other ranks, one that fails does not. Raises RankLostError
    when another rank is gone.
    """
    if not is_launched() or launched_world() == 1:
        yield ALONE
        return
    ranks = TorchRanks.join(on_devices=on_devices)
    try:
        yield ranks
        ranks.wait()  # leaving early would lose messages not yet read
    finally:
        ranks.leave()


def is_launched() -> bool:
    """True when torchrun, or a compatible launcher, started this process."""
    return all(os.environ.get(name) for name in _WHERE)


def launched_rank() -> int:
    """This process's rank in the environment; 0 without a launcher."""
    return _number("RANK", 0) if is_launched() else 0


def launched_world() -> int:
    """The number of processes launched together."""
    return _number("WORLD_SIZE", 1) if is_launched() else 1


def take_device(asked: str) -> str:
    """The device of this rank for the requested one; a GPU becomes torch's current one.

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
    """Turns torch's various errors of a broken connection into one."""
    try:
        yield
    except (RuntimeError, OSError) as error:  # torch's DistError is a RuntimeError
        raise RankLostError(message, hint="its own log says why") from error
