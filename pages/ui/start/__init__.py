"""The page Start: choosing a model, bringing one, and samples."""
