"""`bench evaluate` and `bench score`: rows of models and images that are not trained here."""
