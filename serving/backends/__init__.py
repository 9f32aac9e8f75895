"""What can run a task: Triton and Ray replicas behind one protocol."""
