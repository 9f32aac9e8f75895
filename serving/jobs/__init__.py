"""Durable jobs: states, store, worker."""
