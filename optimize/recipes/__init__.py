"""The recipes: one declaration per exported model, found by the name in ``model.yaml``'s ``export.recipe``."""
