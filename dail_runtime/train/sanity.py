"""Before anything is loaded: the GPU of this rank computes, it is nobody else's, and the ranks reach each other. Within a minute."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from dail_runtime.errors import DailError, SetupError
from dail_runtime.train.ranks import Place
from dail_runtime.train.world import World

LIMIT = 45.0
"""Seconds that each of the two checks may take."""

Abandon = Callable[[DailError], None]
"""Ends this process with an error, from a thread: a call into a broken driver never returns."""


def check_device(place: Place, device: torch.device, abandon: Abandon) -> None:
    """One small product on the GPU, compared with the CPU's; nothing to check on a CPU.

    Raises:
        SetupError: it is shared with another rank, fails, or computes something else; after 45 s without an answer the process ends.
    """
    if device.type != "cuda":
        return
    visible = torch.cuda.device_count()
    if place.local_size > visible:
        raise SetupError(
            f"{place.local_size} training processes run on this machine, but PyTorch sees {visible} GPUs; each needs one of its own"
        )
    remedy = "look for Xid messages in the node's kernel log and at nvidia-smi, and give the pod another node"
    with within(LIMIT, SetupError(f"{device} did not finish a small computation within {LIMIT:.0f} s; {remedy}"), abandon):
        numbers = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
        try:
            found = (numbers.to(device) @ numbers.to(device)).cpu()
        except RuntimeError as err:
            raise SetupError(f"{device} cannot compute ({str(err).splitlines()[0]}); {remedy}") from err
        # TF32 keeps 10 bits of each factor.
        if not torch.allclose(found, numbers @ numbers, rtol=0, atol=0.2):
            raise SetupError(f"{device} computes wrong numbers; {remedy}")


def check_world(world: World, abandon: Abandon) -> None:
    """One sum over all ranks.

    After 45 s without an answer the process ends: the ranks met, but the network between their devices does not carry data.
    """
    hint = "see which interface it should use (NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME) and what NCCL_DEBUG=INFO says"
    error = SetupError(f"the {world.size} ranks met, but a first sum over them did not return within {LIMIT:.0f} s; {hint}")
    with within(LIMIT, error, abandon):
        count = torch.ones((), device=world.device)
        world.sum([count])
        if int(count) != world.size:
            raise SetupError(f"a sum of ones over {world.size} ranks gave {float(count):g}; {hint}")


@contextmanager
def within(seconds: float, error: DailError, abandon: Abandon) -> Iterator[None]:
    """End the process by `abandon(error)` where the body takes longer."""
    timer = threading.Timer(seconds, abandon, (error,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
