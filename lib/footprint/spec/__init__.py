"""What there is: models, GPUs and electricity by year and by hour, from the tables in `data/`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "decoders": ["DTYPE_BYTES", "Model", "bytes_of", "model", "models"],
        "electricity": ["Grid", "at", "grid", "hourly", "typical", "utc_offset_h", "zone_name"],
        "hardware": ["ENGINES", "GPU", "gpu", "gpus", "known", "label"],
        "tables": ["content", "frame", "nearest", "record", "records", "rows", "table"],
    },
)
