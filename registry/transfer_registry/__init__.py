"""From a trained classifier to a served one: packaging, the gate, the ledger, promotion, serving.

Importing the package itself loads nothing.
"""
