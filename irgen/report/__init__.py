"""What people read: figures, tables of methods, galleries and the page that holds them."""
