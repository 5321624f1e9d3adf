"""The pages of the dashboard: each one thin file; their parts are in `pages.ui`."""
