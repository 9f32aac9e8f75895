"""Engines of Coqui's voices, VITS and XTTS, by the package coqui-tts; nothing else depends on it."""
