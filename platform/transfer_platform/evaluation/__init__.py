"""Evaluation of predictions: metrics, calibration, figures and reports."""
