"""Frozen weights spread over all ranks (FSDP2): each layer is gathered while it computes, so no process needs room for the whole model.

The adapter is not sharded: it is small, every rank has all of it, and its gradient is summed as without sharding. Frozen weights
have no gradient, so all that sharding adds is the gathering.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor

from dail_runtime.train.adapter import Student, base_of, head_of, trainable_of
from dail_runtime.train.world import World


def shard(student: Student, world: World) -> None:
    """Spread the frozen weights of `student` over all ranks, onto their devices; all ranks call it.

    Rank 0's model has its weights in main memory; those of the others have shapes only (`models.empty_model`) and get theirs from it, a
    tensor at a time.
    """
    mesh = init_device_mesh(world.device.type, (world.size,))
    model, adapter = student.causal, set(student.trainable.values())
    whole = model.state_dict() if world.lead else {}
    output, embedding = base_of(model.get_output_embeddings()), model.get_input_embeddings()
    tied = output.weight is embedding.weight
    for part in [*layers_of(student), student.decoder]:
        fully_shard(part, mesh=mesh, ignored_params=adapter, reshard_after_forward=True)
    # The output matrix is no part of the decoder, and nothing but the loss reads it, which gathers it.
    if tied:
        output.weight = embedding.weight
    else:
        matrix = output.weight.data if output.weight.is_meta else output.weight.data.to(world.device)
        output.weight = nn.Parameter(distribute_tensor(matrix, mesh, [Shard(0)], src_data_rank=None), requires_grad=False)
    if world.lead:
        for one in (*adapter, *model.buffers(), *([output.bias] if output.bias is not None else [])):
            one.data = one.data.to(world.device)
    else:
        model.to_empty(device=world.device)
        if tied:
            output.weight = embedding.weight
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=False)
    set_model_state_dict(model, whole, options=options)
    # Buffers that no file holds (rotary frequencies) are in no state dict.
    for buffer in model.buffers():
        dist.broadcast(buffer, 0)
    student.trainable = trainable_of(student.peft)
    world.share(student.trainable.values())
    student.head = head_of(model)
    student.device, student.sharded = world.device, True


def layers_of(student: Student) -> list[nn.Module]:
    """The decoder's blocks, as the model itself names the classes that must stay in one piece."""
    names = set(student.causal._no_split_modules or ())
    return [module for module in student.decoder.modules() if type(module).__name__ in names and module is not student.decoder]


def must_shard(setting: str, *, weights: int, room: int, world: World) -> bool:
    """Whether the frozen weights (bytes) are spread: as set, or where a copy leaves less than a third of a process's `room` (bytes)."""
    if world.size == 1 or setting == "off":
        return False
    return setting == "on" or world.any(weights > room * 2 // 3)


def room_of(device: torch.device, free: int, processes: int) -> int:
    """Bytes that this process may fill: what is free on its GPU, or its part of the main memory (`free` for `processes`)."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free // processes
