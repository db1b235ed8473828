"""Attempts that are elsewhere: both ends of an attempt that another node runs, and jobs that change their owner."""
