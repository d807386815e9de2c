"""The file of a run, what it must hold, and the reading of many."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "file": ["check", "gather", "load", "place", "save"],
        "points": ["build_points", "check_points", "phase_tokens"],
    },
)
