"""The channels step: which channels go, by which criterion, and what is made of what stays."""
