"""The recipe: everything that determines what a run computes, and how it is read from YAML."""
