"""The engine of MusicGen, by transformers."""
