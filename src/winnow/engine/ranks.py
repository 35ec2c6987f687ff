"""The processes that train one model together: what they tell and send each other. With one rank nothing is sent, and
torch.distributed is not touched."""

from __future__ import annotations

import contextlib
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from winnow.errors import RankError
from winnow.process import ProcessStamp

# Rank 0 may read a large data set or evaluate a large validation set while the others wait.
TIMEOUT = timedelta(minutes=30)
_BUCKET_ELEMENTS = 1 << 24
_LONGEST_NAP_SECONDS = 1e-3
_LOOK_SECONDS = 0.5
_GONE_SECONDS = 1.0
_EXPLAIN_SECONDS = 6.0

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process's place among ``size`` ranks, of which ``local_size`` are on this machine.

    Every method but ``tell`` is called by all ranks alike and waits for them. A rank that is gone, or that told why it
    ended, makes the others raise RankError within seconds.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    peers: Sequence[ProcessStamp] = ()
    store: Any = None

    @property
    def is_main(self) -> bool:
        """Return whether this is rank 0: the one that tracks and writes files."""
        return self.rank == 0

    def sum(self, *numbers: float) -> list[float]:
        """Return the sum over ranks of each number."""
        if self.size == 1:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.float64)
        self._run(lambda: dist.all_reduce(total, async_op=True))
        return cast(list[float], total.tolist())

    def any(self, flag: bool) -> bool:
        """Return whether ``flag`` is true on some rank."""
        return self.sum(flag)[0] > 0

    def gather(self, value: T) -> list[T]:
        """Return on rank 0 every rank's ``value`` in their order, elsewhere nothing."""
        if self.size == 1:
            return [value]
        data = pickle.dumps(value)
        lengths = self.sum(*(len(data) if rank == self.rank else 0 for rank in range(self.size)))
        own = torch.zeros(int(max(lengths)), dtype=torch.uint8)
        own[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        every = [torch.empty_like(own) for _ in range(self.size)] if self.is_main else None
        self._run(lambda: dist.gather(own, every, dst=0, async_op=True))
        return [pickle.loads(part.numpy().tobytes()[: int(n)]) for part, n in zip(every or [], lengths, strict=False)]

    def broadcast(self, value: T) -> T:
        """Return rank 0's ``value``."""
        if self.size == 1:
            return value
        data = pickle.dumps(value) if self.is_main else b""
        buffer = torch.empty(int(self.sum(len(data))[0]), dtype=torch.uint8)
        if self.is_main:
            buffer.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        self._run(lambda: dist.broadcast(buffer, 0, async_op=True))
        return value if self.is_main else cast(T, pickle.loads(buffer.numpy().tobytes()))

    def share_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Put rank 0's values into the ``tensors`` of all."""
        self._in_buckets(tensors, lambda flat: dist.broadcast(flat, 0, async_op=True))

    def sum_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Replace ``tensors`` by their sums over ranks, bit for bit the same on each."""
        self._in_buckets(tensors, lambda flat: dist.all_reduce(flat, async_op=True))

    def tell(self, reason: str) -> None:
        """Leave word why this rank ends, for the others to repeat."""
        if self.size > 1:
            with contextlib.suppress(RuntimeError):  # whoever keeps the store may be gone already
                self.store.set("reason", f"rank {self.rank}: {reason}")

    @torch.no_grad()
    def _in_buckets(self, tensors: Sequence[Tensor], start: Callable[[Tensor], Any]) -> None:
        if self.size == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            self._run(lambda flat=flat: start(flat))  # type: ignore[misc]
            parts = flat.split([tensor.numel() for tensor in bucket])
            shaped = [part.view(tensor.shape) for part, tensor in zip(parts, bucket, strict=True)]
            torch._foreach_copy_(bucket, shaped)

    def _run(self, start: Callable[[], Any]) -> None:
        """Begin a collective operation and wait for it, in Python: so signals are heard, and a rank that died is seen at
        once though its loader workers may keep its connections open, and though NCCL would wait for the time limit."""
        try:
            work = start()
            began = looked = time.monotonic()
            while not work.is_completed():
                now = time.monotonic()
                time.sleep(min(_LONGEST_NAP_SECONDS, (now - began) / 10))
                if now - looked > _LOOK_SECONDS:
                    looked = now
                    self._require_all(work)
            work.wait()
        except RuntimeError as error:
            raise self._explained(error) from error

    def _require_all(self, work: Any) -> None:
        """Raise RankError if a rank is gone and the operation does not come to its end without it."""
        if not self._gone():
            return
        time.sleep(_GONE_SECONDS)
        if not work.is_completed():
            raise RuntimeError("a rank is gone")

    def _explained(self, error: RuntimeError) -> RankError:
        # A rank that failed leaves word first; one that was killed is seen to be gone as soon as the system has noticed.
        end = time.monotonic() + _EXPLAIN_SECONDS
        while time.monotonic() < end:
            time.sleep(0.05)
            gone = self._gone()
            reason = None if 0 in gone else self._told()  # rank 0 may have kept the store
            if reason is not None:
                return RankError(reason)
            if gone:
                who = ", ".join(f"rank {rank} (process {self.peers[rank].pid})" for rank in gone)
                return RankError(f"{who} vanished: killed or crashed, without a word; go on with training.resume")
        return RankError(f"the connection to another rank broke: {str(error).splitlines()[0]}")

    def _told(self) -> str | None:
        with contextlib.suppress(RuntimeError):
            return self.store.get("reason").decode() if self.store.check(["reason"]) else None
        return None

    def _gone(self) -> list[int]:
        return [rank for rank, peer in enumerate(self.peers) if rank != self.rank and peer.is_alive() is False]


ALONE = Ranks()


@contextlib.contextmanager
def joined(store: Any, place: Ranks, require_others: Callable[[], None]) -> Iterator[Ranks]:
    """Return ``place`` with its peers, all of whom have come; connected by gloo for the CPU's tensors and NCCL for a
    GPU's.

    ``store`` is a torch.distributed Store that all ranks reach; ``require_others`` is called while they are waited for,
    to raise where that is in vain.
    """
    store.set(f"peer/{place.rank}", ProcessStamp.this_process().to_json())
    keys = [f"peer/{rank}" for rank in range(place.size)]
    end = time.monotonic() + TIMEOUT.total_seconds()
    while not store.check(keys):
        require_others()
        if time.monotonic() > end:
            raise RankError(f"not all of {place.size} ranks came within {TIMEOUT}")
        time.sleep(0.02)
    peers = [ProcessStamp.from_json(store.get(key).decode()) for key in keys]
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.size, timeout=TIMEOUT)
    try:
        yield Ranks(place.rank, place.size, place.local_rank, place.local_size, peers, store)
    finally:
        dist.destroy_process_group()


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield the tensors of each type in their order, so many at a time that a copy of them is not large."""
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        bucket: list[Tensor] = []
        for tensor in tensors:
            if tensor.dtype != dtype:
                continue
            if bucket and sum(other.numel() for other in bucket) + tensor.numel() > _BUCKET_ELEMENTS:
                yield bucket
                bucket = []
            bucket.append(tensor)
        yield bucket
