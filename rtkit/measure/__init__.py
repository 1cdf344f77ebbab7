"""What one cell of a study measures: a frozen dataclass that says all that decides it, and `rows(cell)`."""
