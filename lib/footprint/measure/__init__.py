"""Running a model under instruments: what is read, what is run, and in which order."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"profile": ["answers", "run"]}
)
