"""Intakes: jobs from the queues a studio already has."""
