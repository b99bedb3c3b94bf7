"""The ops, a file a family. Importing this package registers them."""

from engine.ops import (  # noqa: F401
    activations,
    attention,
    conditional,
    convolution,
    ctc,
    elementwise,
    indexing,
    linear,
    loop,
    losses,
    normalization,
    ordering,
    pooling,
    random,
    recurrent,
    reductions,
    scattering,
    softmax,
    sources,
    views,
)
