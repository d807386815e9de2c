"""What GPUs would do that were not measured, with intervals."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "model": [
            "causes",
            "gpu_from_probe",
            "largest_batch",
            "parameters",
            "points",
            "usable_bytes",
            "windows",
        ],
        "modelled": ["trace"],
    },
)
