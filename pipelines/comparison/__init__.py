"""Compares ways to call a model: runs them, proves that they agree, prices them, and reports."""
