"""The version of this software; the only place that says it besides pyproject.toml, which a test compares."""

VERSION = "0.1.0"
