"""Evaluation: how good is a circuit?"""
