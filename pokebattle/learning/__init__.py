"""What a model learns from: features of a matchup, and the baselines that it has to beat."""
