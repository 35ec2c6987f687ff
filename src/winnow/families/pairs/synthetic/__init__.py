"""The embedded data set of pairs: what is drawn, and where it is kept."""
