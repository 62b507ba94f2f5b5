"""The student: a LoRA adapter on one copy of the weights, which serves as both references while the adapter is off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel

from dail_runtime.errors import ModelError
from dail_runtime.spec.train import LoraSpec
from dail_runtime.train.batches import Batch, collate
from dail_runtime.train.loss import Head, LowRank

CHECKPOINTED = 500_000_000
"""Parameters above which `gradientCheckpointing: auto` recomputes activations."""


class Student:
    """A causal language model with an adapter: hidden states with and without it, and the output layer.

    The adapter is float32; where the frozen weights have 16 bits, autocast multiplies in their type.
    """

    def __init__(self, model: PreTrainedModel, lora: LoraSpec, *, seed: int, recompute: bool) -> None:
        """
        Args:
            model: Frozen; the adapter's layers are put into it, and its weights stay as they are.
            lora: The adapter.
            seed: Of the adapter's first values.
            recompute: Gradient checkpointing: recompute activations in the backward pass instead of keeping them.

        Raises:
            ModelError: a target names no layer, or the model makes its logits in a way dail does not know.
        """
        check_targets(model, lora.targets)
        self.causal = model
        self.device = next(model.parameters()).device
        self.dtype = next(model.parameters()).dtype
        config = LoraConfig(
            r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(lora.targets), task_type="CAUSAL_LM"
        )
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            # Its first values are drawn on the CPU: the same on every device.
            try:
                self.peft: PeftModel = get_peft_model(model, config, autocast_adapter_dtype=True)
            except ValueError as err:
                # Experts that are one tensor can be adapted, but not in every way that linear layers can.
                raise ModelError(
                    f"train.lora: {model.config.name_or_path} cannot be adapted so ({err}); change targets or dropout"
                ) from None
        if self.dtype != torch.float32:
            # Autocast multiplies in 16 bits: widening a layer's input to the adapter's type first would only be undone.
            for module in model.modules():
                if isinstance(module, LoraLayer):
                    module.cast_input_dtype_enabled = False
        self.trainable = trainable_of(self.peft)
        if recompute:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        # peft says it is in training mode while the layers inside are still in evaluation mode, where nothing is recomputed.
        self.peft.train()
        self.decoder: nn.Module = model.get_decoder()
        if self.decoder is model:
            raise ModelError(f"{model.config.name_or_path}: {type(model).__name__} does not tell its decoder apart; choose another model")
        self._output: nn.Module = model.get_output_embeddings()
        self.head = head_of(model)
        self.sharded = False
        """Whether every pass needs all ranks, because each holds a part of the frozen weights only."""

    @property
    def width(self) -> int:
        """Numbers in one hidden state."""
        return self.head.weight.shape[1]

    def hidden(self, batch: Batch) -> Tensor:
        """The student's hidden states [tokens, H] in the rows that predict the response, with a graph."""
        if not self.peft.training:
            self.peft.train()
        return self._rows(batch)

    def update(self, hidden: Tensor) -> LowRank | None:
        """What the adapter of the output layer adds to the logits of hidden states [tokens, H]; None where it has no adapter."""
        if not isinstance(self._output, LoraLayer):
            return None
        down, up = self._output.lora_A["default"].weight, self._output.lora_B["default"].weight
        inputs = self._output.lora_dropout["default"](hidden.to(down.dtype))
        return LowRank(nn.functional.linear(inputs, down) * self._output.scaling["default"], up)

    @torch.no_grad()
    def reference_hidden(self, batch: Batch) -> Tensor:
        """The frozen model's hidden states [tokens, H]: the adapter is off, and so is any dropout of the model."""
        self.peft.eval()
        with self.peft.disable_adapter():
            return self._rows(batch)

    def idle(self, *, learning: bool) -> None:
        """A pass over one token that changes nothing: for a rank without work while the others need its part of the weights."""
        batch = collate([(0,)], [(0,)], self.device)
        if learning:
            states = self.hidden(batch)
            # As the loss does, and in this order on all ranks: what is sharded of the output matrix is gathered.
            self.head.whole()
            torch.autograd.backward(states.sum() * 0)
        else:
            self.reference_hidden(batch)

    def check_head(self, ids: Tensor) -> None:
        """Compare logits that this class would make of `ids` [1, n] with those of the model itself.

        Raises:
            ModelError: they differ: the model does something to its logits that `Head` does not describe.
        """
        self.peft.eval()
        with torch.no_grad(), self._autocast():
            with self._whole_output():
                expected = self.causal(input_ids=ids, use_cache=False).logits[0]
            hidden = self.decoder(input_ids=ids, use_cache=False).last_hidden_state[0]
            update = self.update(hidden)
        found = self.head.logits(hidden, update)
        # 16-bit logits are rounded to 8 significant bits; what this looks for is a missing scale, cap or projection.
        tolerance = (1e-3 if expected.dtype == torch.float32 else 2e-2) * float(expected.abs().max())
        if found.shape != expected.shape or not torch.allclose(found, expected.float(), rtol=0, atol=tolerance + 1e-4):
            name, kind = self.causal.config.name_or_path, type(self.causal).__name__
            raise ModelError(f"{name}: {kind} makes its logits in a way that dail's loss does not know; choose another model")

    @contextmanager
    def _whole_output(self) -> Iterator[None]:
        """The model's own output layer can compute: its matrix is gathered meanwhile where it is sharded."""
        layer = base_of(self._output)
        sharded = layer.weight
        whole = self.head.whole().weight
        if whole is not self.head.weight:
            layer.weight = nn.Parameter(whole, requires_grad=False)
        try:
            yield
        finally:
            layer.weight = sharded

    def _rows(self, batch: Batch) -> Tensor:
        with self._autocast():
            states: Tensor = self.decoder(input_ids=batch.ids, use_cache=False).last_hidden_state
        # index_select: its backward pass adds in a fixed order, which resuming bit for bit relies on.
        return states.flatten(0, 1).index_select(0, batch.rows)

    def _autocast(self) -> Any:
        return nullcontext() if self.dtype == torch.float32 else torch.autocast(self.device.type, dtype=self.dtype)


def head_of(model: PreTrainedModel) -> Head:
    """The model's output layer, with what its configuration says about scaling and capping logits."""
    layer = model.get_output_embeddings()
    layer = base_of(layer)
    config = model.config.get_text_config()
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    return Head(layer.weight, getattr(layer, "bias", None), scale, None if cap is None else float(cap))


def base_of(layer: nn.Module) -> Any:
    """The layer without its adapter."""
    return layer.get_base_layer() if isinstance(layer, LoraLayer) else layer


def trainable_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """The adapter's weights by name."""
    return {name: one for name, one in model.named_parameters() if one.requires_grad}


def check_targets(model: PreTrainedModel, targets: tuple[str, ...]) -> None:
    """Refuse adapter targets that match no linear layer of the model, and an output layer that shares its matrix with the embedding.

    Raises:
        ModelError: names the linear layers there are.
    """
    output, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = output.weight is embedding.weight
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear) and not (tied and module is output)}
    known = sorted({name.rsplit(".", 1)[-1] for name in linear})
    remedy = f"name some of {', '.join(known)}" if known else "it has none at all: choose another model"
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in linear):
            raise ModelError(
                f"train.lora.targets: {model.config.name_or_path} has no linear layer {target!r} that can be adapted; {remedy}"
            )


def recomputes(setting: str, model: PreTrainedModel) -> bool:
    """Whether `gradientCheckpointing` means recomputing for this model."""
    return setting == "on" or (setting == "auto" and model.num_parameters() > CHECKPOINTED)


def merge(student: Student) -> PreTrainedModel:
    """The plain model with the adapter added into its weights, computed in float32 and rounded once. The student is used up."""
    with torch.no_grad():
        for module in student.peft.modules():
            if isinstance(module, LoraLayer):
                # All experts of a layer are one tensor, which is no layer's `weight`.
                weight = module.get_param() if isinstance(module, ParamWrapper) else module.get_base_layer().weight
                weight.copy_(weight.float() + module.get_delta_weight("default").float())
    plain: PreTrainedModel = student.peft.unload()
    return plain
