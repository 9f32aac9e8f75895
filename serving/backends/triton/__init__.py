"""A tritonserver child process as a Ray Serve replica."""
