"""What an instance offers, whatever carries the requests: who speaks, what it may do, and verbs from values to values."""
