"""How long does the alignability of a convolution take, and how much memory?

Each row is a 3 × 3 layer with padding 1 and ten outputs of the network; seconds are medians, memory is what numpy has
allocated at most at any one time in the call. Beside it stands the matrix the layer unrolls to, which is never formed.

Run: python benchmarks/alignability.py
"""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import numpy as np
from _timing import interleaved, save

from feedalign.theory import convolution

OUTPUTS = 10


def measured(channels: int, size: int, regions: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    geometry = convolution.Geometry((channels, size, size), channels, padding=(1, 1), regions=(regions, regions))
    F_out, F_in = (rng.standard_normal((channels * size**2, OUTPUTS)) for _ in range(2))

    def find() -> float:
        return convolution.alignability(
            F_out, F_in, in_shape=geometry.in_shape, out_channels=channels, padding=1, regions=regions
        )

    (seconds,) = interleaved(find, rounds=5, warm_up=1)
    tracemalloc.start()
    found = find()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {
        "what": f"{channels} → {channels}, {size} × {size}, " + ("locally connected" if regions > 1 else "convolution"),
        "alignability": round(found, 4),
        "estimate": round(convolution.random_estimate(geometry, OUTPUTS), 4),
        "seconds": round(seconds, 3),
        "megabytes": round(peak / 1e6),
        "asked": "1 s, 200 MB" if (channels, size, regions) == (64, 32, 1) else None,
        "unrolled_megabytes": round(8 * math.prod(geometry.in_shape) * math.prod(geometry.out_shape) / 1e6),
    }


def main() -> None:
    save("alignability", [measured(*case) for case in ((64, 8, 1), (64, 32, 1), (128, 32, 1), (64, 32, 32))])


if __name__ == "__main__":
    main()
