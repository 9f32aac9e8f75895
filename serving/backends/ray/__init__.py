"""Ray Serve replicas: one process that holds one or more engines."""
