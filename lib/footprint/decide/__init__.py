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
        "compare": [
            "HOST",
            "HOST_W",
            "LIFETIMES",
            "choices",
            "pareto",
            "probability",
            "ratios",
            "scenarios",
            "versus",
        ],
        "disaggregation": ["Link", "disaggregate", "gpu_pairs"],
        "schedule": ["Freedom", "configurations", "demand", "mean_request", "plan", "replay"],
        "search": ["BATCHES", "Request", "optimum"],
        "shifting": ["grid_hours", "savings", "shift"],
        "claims": ["LIKELY", "MATTERS", "SURE", "WORTH", "Case", "JUDGES", "scoreboard"],
        "world": [
            "ZONES",
            "best_batch",
            "draw_world",
            "grid_years",
            "grids",
            "grids_of",
            "intervals",
            "points",
            "sampled",
            "sampled_use",
            "tokens",
            "total",
        ],
    },
)
