"""A GPU in Python: blocks of threads run kernels' own text, and what a GPU leaves undefined is an error here.

Threads are greenlets, which run until they have to meet others: a warp's lanes for an instruction that they execute
together, a block's threads at a barrier. Which runs first is up to an ``order``, so that kernels that rely on one are
found out. Memory is checked bytes: global memory by buffers, shared memory against its size and against copies that
have not arrived, and both against threads that do not wait for one another; of a launch, blocks never do.
"""

from __future__ import annotations

import os

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")
"""Whether kernels run here, in this process, instead of on a GPU."""
