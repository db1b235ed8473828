"""A node's own jobs: who may submit, yes or no, what is known and durable, the life of each until it has an outcome."""
