"""An experiment from its file to its records: the settings, the jobs, the data, and the loop that trains one job."""
