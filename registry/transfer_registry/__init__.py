"""Model registry: packaging, promotion gate, ledger, promotion and serving.

Importing the package does not import any of its modules.
"""
