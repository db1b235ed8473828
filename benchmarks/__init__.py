"""Side by side with floors and peers; see run.py."""
