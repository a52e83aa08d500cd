"""Searches a version's settings by Optuna, which nothing else imports; the trials become runs in `tracking`."""
