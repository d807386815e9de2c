"""The file of a run, its schema, the reading of many runs, and their points."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "file": ["check", "checksum", "new", "place", "save", "whole"],
        "folder": ["files", "frame", "gather", "joined", "labelled", "names"],
        "page": ["hash_sources", "read_page", "sort_files"],
        "points": ["build_points", "check_points", "ends", "phase_tokens"],
        "reader": ["content", "head", "load"],
        "schema": ["notebook", "variables"],
    },
)
