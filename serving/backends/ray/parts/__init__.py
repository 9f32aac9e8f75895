"""Exported parts of networks: how a call becomes flat tensors, and who answers it in the place of torch."""
