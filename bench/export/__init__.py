"""`bench export`: trained weights as a folder that diffusers and PEFT read, with a model card."""
