"""The compile cache as users see it: ``tn.cache.info()``, ``tn.cache.clear()``, ``tn.cache.explain()``.

It lies in the user's own cache folder, or where ``TENON_CACHE`` says; ``TENON_CACHE=0`` turns it off.
"""

from runtime.cache import clear, explain, info

__all__ = ["clear", "explain", "info"]
