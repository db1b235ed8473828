"""Bytes and values: the AMP vocabulary, its arguments, and what guards a connection. No sockets, no policy."""
