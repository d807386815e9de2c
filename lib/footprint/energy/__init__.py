"""From readings to joules with their error."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"point": ["points"], "window": ["gather", "windows"]}
)
