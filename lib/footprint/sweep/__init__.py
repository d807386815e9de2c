"""Many runs: their matrix, cost, execution, results and report."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={"cost": ["costs"], "matrix": ["runs"], "runner": ["Run"], "sweeps": ["run"]},
)
