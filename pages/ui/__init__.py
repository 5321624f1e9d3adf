"""Frame, state, text, charts and widgets of the dashboard."""
