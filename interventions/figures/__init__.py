"""Figures and tables of single experiments, a module for each."""
