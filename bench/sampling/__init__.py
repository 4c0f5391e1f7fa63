"""How a policy is sampled: its noise levels, solvers of its ODE, and remedies for exposure bias that train nothing."""
