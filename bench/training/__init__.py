"""What lies behind the doors of a job: the data it reads, what trains, its reward, and what its compute costs."""
