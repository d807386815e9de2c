"""From readings to joules with their error, and from windows to points."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "integrate": ["integral", "slope"],
        "point": ["points", "requests"],
        "runs": ["closure", "gather_runs", "list_runs", "processors"],
        "window": ["gather", "windows"],
    },
)
