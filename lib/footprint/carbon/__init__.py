"""Grams: operational, embodied, with their uncertainty, and those of one token."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "equation": ["Use", "amortised", "operational", "score", "token"],
        "methods": ["compare", "embodied", "host"],
        "uncertainty": ["embodied_draws", "summary"],
    },
)
