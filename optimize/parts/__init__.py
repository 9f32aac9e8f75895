"""Exported parts of networks: which modules of which models are exported, how they are proven equal and published."""
