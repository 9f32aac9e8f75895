"""Translation by transformers: Marian, M2M100, NLLB and Seamless behind one engine."""
