"""The network shell: requests of clients, carried by AMP, to a node's front door."""
