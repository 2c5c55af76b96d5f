"""Linear classifiers that are solved to convergence on fixed features."""
