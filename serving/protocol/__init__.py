"""The wire and the words: typed tasks, artifacts and tensors; holds no server."""
