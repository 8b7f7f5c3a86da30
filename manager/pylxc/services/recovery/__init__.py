"""What is left in storage pools when the database is lost: found, and made known again."""
