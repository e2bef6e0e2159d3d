"""Texts to try the system with."""
