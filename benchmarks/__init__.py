"""What is measured: prompt sets, metrics, suites, and the models that the metrics stand on."""
