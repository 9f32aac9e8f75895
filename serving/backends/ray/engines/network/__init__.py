"""What every engine that runs a neural network shares: placement, queue, batches, steps, seeds, faults, inputs."""
