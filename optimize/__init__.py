"""Offline: export, verify and benchmark models; writes into model_repository/."""
