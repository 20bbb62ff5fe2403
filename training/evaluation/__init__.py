"""How well the product judges days and networks it never saw: one module a question."""
