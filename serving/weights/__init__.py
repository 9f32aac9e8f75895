"""The weights of models: fetched, checked, and kept on the node."""
