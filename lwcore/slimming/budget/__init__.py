"""Budgets: what a removal saves, what it harms, and how a limit is shared out over the layers."""
