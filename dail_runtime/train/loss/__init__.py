"""The objective, from hidden states to loss and gradient in chunks of tokens."""

from dail_runtime.train.loss.fused import LossOutput, fused_loss
from dail_runtime.train.loss.head import Head
from dail_runtime.train.loss.rows import TokenFigures

__all__ = ["Head", "LossOutput", "TokenFigures", "fused_loss"]
