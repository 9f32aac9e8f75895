"""`python -m loadtests.bench`, which is `make bench`: the mesh against its own baselines, in one run."""
