"""The HTTP and gRPC control plane, jobs API and pages."""
