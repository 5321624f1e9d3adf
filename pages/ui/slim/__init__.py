"""The page Slim: the controls of every method, and what a recipe saves and costs."""
