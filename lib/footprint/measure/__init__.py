"""A model that runs under an instrument: engines, instruments, windows and provenance."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"profile": ["answers", "run"]}
)
