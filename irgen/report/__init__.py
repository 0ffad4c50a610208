"""Make the report for people: figures, tables of methods, galleries, and a page with them."""
