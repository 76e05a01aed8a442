"""Domains: probability measures to draw points from, and samplers that fill the unit cube."""
