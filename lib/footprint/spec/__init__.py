"""What there is: models, GPUs, electricity grids by year and by hour, hosts; typed rows of the tables in `data/`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "hours": ["at", "hourly", "typical"],
        "records": [
            "DTYPE_BYTES",
            "ENGINES",
            "GPU",
            "Grid",
            "Model",
            "bytes_of",
            "gpu",
            "gpus",
            "grid",
            "label",
            "model",
            "models",
            "nearest",
            "record",
            "table",
            "utc_offset_h",
            "zone_name",
        ],
    },
)
