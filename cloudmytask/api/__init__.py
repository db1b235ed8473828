"""What an instance offers, whatever carries the requests: who speaks, what that allows, and the verbs."""
