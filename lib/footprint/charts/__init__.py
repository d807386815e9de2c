"""The figures of the book, a module a part."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "carbon": [
            "embodied_bars",
            "embodied_share",
            "hour_map",
            "operational_regions",
            "tornado",
            "total_per_token",
        ],
        "decide": [
            "carbon_ratios",
            "front",
            "odds",
            "payback",
            "plans",
            "setups",
            "split",
            "waiting",
            "winners",
        ],
        "performance": ["cards", "energy_per_token", "headline", "latency", "memory", "ratios"],
        "evidence": [
            "bound",
            "budget",
            "causes",
            "closure",
            "coverage",
            "edges",
            "errors",
            "predicted",
            "scoreboard",
        ],
    },
)
