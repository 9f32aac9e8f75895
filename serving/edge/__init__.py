"""The HAProxy front door, fed from live replicas."""
