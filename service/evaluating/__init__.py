"""Evaluation of descriptor specs on pictures or a collection, and its reports."""
