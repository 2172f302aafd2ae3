"""One HTTP exchange over requests: retries, deadlines, connections, and the translation of every failure."""
