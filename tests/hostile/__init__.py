"""Hostile files: a script that makes them, and a mutator of good ones."""
