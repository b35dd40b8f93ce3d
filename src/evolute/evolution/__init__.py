"""Who copies whom, and with which hyperparameters."""
