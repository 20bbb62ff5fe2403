"""Models of normal traffic: transform, forest, calibration, explanation, learning, files."""
