"""Workspaces: who is here, what is kept and found again, and links that share it."""
