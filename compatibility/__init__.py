"""The compatibility suite: other people's models and frameworks under the rules. `make compatibility` runs it."""
