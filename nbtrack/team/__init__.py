"""A server for a team, with or without Docker: PostgreSQL, MLflow with accounts, backup."""
