"""Upper bounds of a user's settings, each with its reason. A larger value is a mistake, and is refused at once.

Nothing heavy is imported here: the command line reads these before it does anything. The bounds are ours where no
source is named.
"""

from __future__ import annotations

LARGEST_INTEGER = 2**63 - 1
"""TOML's, and that of the programs that read our records."""

LONGEST_NAME = 100
"""Characters of a name that becomes a folder. A job's folder joins three, and a file system takes 255 bytes."""

DEEPEST_SETTING = 16
"""How deep a setting nests: ours nest three deep, and thousands of levels end Python's own stack."""

MOST_SEEDS = 1000
"""Of an experiment. Each is a job of every row."""

MOST_EVALUATIONS = 1000
"""Of a job. Each draws the whole suite, and a report finds one by its share of the budget to six digits."""

MOST_IMAGES = 65_536
"""Rows or images worked on together: more than any suite has, and than any device holds."""

LARGEST_COUNT = 100_000
"""Of a method's setting that states no bound: 100 times the largest batch of any paper that we follow."""

MOST_HELD_OUT = 10_000
"""Pairs kept from training; an evaluation reads a few hundred."""

LARGEST_SIDE = 8192
"""Pixels of a picture's side. The positions of SD3.5 end at 6144 and lower."""

MOST_T5_TOKENS = 512
"""diffusers' ``StableDiffusion3Pipeline`` takes no more."""

LARGEST_SCALE = 1000.0
"""Of guidance; pictures are noise long before."""

MOST_REPEATS = 100
"""Times as often as a suite has it that a prompt is drawn; each draws the whole suite."""

MOST_STEPS = 1000
"""Of a sampler; the family has 1000 training timesteps."""

MOST_SCALES = 100
"""Of one sweep; each draws the whole suite."""

MOST_TRIALS = 1000
"""Of a row that is tuned; each trains."""

MOST_TASKS = 1024
"""Processes or GPUs of one machine; the largest have a few hundred cores and 16 GPUs."""

MOST_ON_CPU = 16
"""Processes on a machine without a GPU and with fewer cores: some oversubscribe to try things, none by hundreds."""

MOST_GPUS = 100_000
"""That share a job in a dry run."""

MOST_MINUTES = 365 * 24 * 60
"""Of a Slurm job: a year."""

MOST_TRAINING_STEPS = 1_000_000
"""Of a stage of `bench pretrain`; the recipes take thousands."""

MOST_TFLOPS = 1e6
"""Of a GPU; an H100 has 989 in bfloat16."""

LARGEST_BUDGET = {"flops": 1e30, "updates": 1e9, "steps": 1e9, "device-seconds": 1e9}
"""By currency. 1e9 seconds are 32 years; the largest trainings that are known took 1e27 FLOPs."""
