"""What an instance offers over any transport: who speaks, what that allows, and the verbs."""
