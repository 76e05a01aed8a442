"""What is refused before elements are solved: statements that leave u undetermined."""
