"""What the SOAR paper reports: as data, beside what a run measured, and alone. Never part of a ranking."""
