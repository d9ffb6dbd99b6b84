"""Boots finished artifacts in the form in which they ship, and looks at them from inside."""
