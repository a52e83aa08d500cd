"""A server for a team: PostgreSQL, MLflow with accounts on it, and what keeps them, with Docker or without."""
