"""The ops, a file a family. Importing this package registers them."""

from engine.ops import (  # noqa: F401
    convolution,
    elementwise,
    linear,
    losses,
    pooling,
    random,
    reductions,
    softmax,
    sources,
    views,
)
