"""Values to bytes and back: what a supervisor writes, any other can read, and nothing that is read can run code."""
