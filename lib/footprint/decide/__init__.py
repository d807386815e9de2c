"""What follows: which GPU, which batch, where, when; and which claims hold."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "breakeven": [
            "break_even",
            "drifting",
            "emitted",
            "host_tie",
            "old_wins",
            "on_gpu",
            "payback",
            "spread",
        ],
        "compare": ["LIFETIMES", "pareto", "probability", "ratios", "scenarios", "versus"],
        "search": ["BATCHES", "Request", "optimum"],
        "world": [
            "best_batch",
            "draw_world",
            "grid_years",
            "grids",
            "intervals",
            "points",
            "sampled",
            "sampled_use",
            "tokens",
            "total",
        ],
    },
)
