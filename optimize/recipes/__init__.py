"""The recipes: one declaration per exported model, found by ``export.recipe`` in ``model.yaml``."""
