"""Mine, label, correct and fit process reward models."""
