"""Everything importable of this codebase: the task (``occ``), the method (``gaussrender``) and one package per model family."""
