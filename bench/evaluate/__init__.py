"""`bench evaluate` and `bench score`: rows of models and pictures that are not trained here."""
