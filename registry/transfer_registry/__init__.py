"""Model registry: packaging, promotion gate, ledger, promotion and serving.

Importing the package imports none of its modules.
"""
