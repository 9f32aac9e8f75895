"""Whisper by CTranslate2 and by transformers: what both share is in here once."""
