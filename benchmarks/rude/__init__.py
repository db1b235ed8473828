"""Rude company: what shortages and rude clients cost the others. See ``__main__``."""
