"""What runs here: attempts in slots, and where their output is."""
