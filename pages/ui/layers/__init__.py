"""The page Layers: table, charts, one layer in detail."""
