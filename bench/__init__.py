"""White-box measurements that load what they measure, each a command of its own; their tables are in results/."""
