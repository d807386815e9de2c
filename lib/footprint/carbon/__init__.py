"""Grams: operational, embodied, with their uncertainty, and those of one token."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "equation": ["J_PER_KWH", "YEAR_S", "Use", "amortised", "operational", "score", "token"],
        "methods": ["MAIN", "METHODS", "SOURCED", "compare", "embodied", "host"],
        "uncertainty": ["embodied_draws", "sensitivity", "summary", "use_draws"],
    },
)
