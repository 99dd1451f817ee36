"""What is concluded from results: comparison, calibration, detectors judged, histories checked, chaos."""
