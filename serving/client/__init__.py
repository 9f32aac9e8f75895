"""The client of the mesh."""
