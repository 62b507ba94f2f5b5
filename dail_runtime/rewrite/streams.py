"""Random numbers that belong to a sample: the uniform of step t depends on (problem seed, sample index, t) and on nothing else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 64
"""Uniforms of which the first can be found without the ones before it."""


def uniforms(seed: int, index: int, block: int, blocks: int = 1) -> NDArray[np.float64]:
    """Uniforms in [0, 1) for steps BLOCK * block ... BLOCK * (block + blocks) - 1 of sample `index` of the problem with `seed`.

    Philox4x64 keyed by (seed, index) and started at the block's counter: any block can be made without the ones before
    it. The raw 64-bit words are turned into numbers here, because numpy keeps those the same over its versions but not what
    its distributions make of them.
    """
    generator = np.random.Philox(key=np.array([seed, index], dtype=np.uint64), counter=block * (BLOCK // 4))
    top = generator.random_raw(BLOCK * blocks) >> np.uint64(11)
    return top.astype(np.float64) * 2.0**-53
