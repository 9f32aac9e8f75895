"""The last stages every graph shares: compose, check the file, say what made it.

The one invariant: a job completes only with files that passed their own checks.
"""
