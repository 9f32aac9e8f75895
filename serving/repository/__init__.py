"""The model repository: load, check and describe model folders."""
