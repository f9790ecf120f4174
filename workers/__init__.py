"""Pairs computed by other processes, on one machine or many, with Ray, which is optional."""
