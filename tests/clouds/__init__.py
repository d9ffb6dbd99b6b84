"""The services that publishing is tested against: real ones, and small servers where none is."""
