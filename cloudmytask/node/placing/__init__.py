"""Who runs a waiting job: this node while it is free, otherwise another one."""
