"""Families of procedural pictures: each a function of a random generator and a side in pixels."""
