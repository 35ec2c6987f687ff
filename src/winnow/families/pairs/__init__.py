"""Pairs of registered images: a visible and an infrared one of the same scene, with the same objects in both."""
