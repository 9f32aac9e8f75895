"""Kubernetes: render the mesh into manifests and check them."""
