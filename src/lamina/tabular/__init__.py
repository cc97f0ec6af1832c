"""Rows and columns: scikit-learn's estimators on lamina's engine, and whole tables."""
