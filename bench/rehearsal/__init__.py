"""Rehearsals: the real steps of a job on a pretended GPU, so that memory, waits and mix-ups are seen without one.

Tensors of the CPU stay real, tensors of ``cuda`` are fake: they have a shape, a dtype and a device, and no numbers
(torch's ``FakeTensorMode``). So reading, dealing, indices and random draws run as ever, and whatever crosses from one
device to the other is seen. ``docs/rehearsal.md`` says what this proves and what it does not.

A process of its own does it (``worker``), since torch must be told before it is loaded that there is no accelerator
to ask (``answers``). ``ask`` starts it; everything else here runs inside.
"""
