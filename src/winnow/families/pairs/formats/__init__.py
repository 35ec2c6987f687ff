"""Pairs as others lay them on disk, read into ``PairRecord``s."""
