"""How the shipped models are made, and how to make them again."""
