"""Engines of neural voices: VITS and MMS by transformers, VITS and XTTS by Coqui, and what they share."""
