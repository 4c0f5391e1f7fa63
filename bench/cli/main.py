"""The ``bench`` command: the group of all commands, and what becomes of their errors."""

from __future__ import annotations

import os
import signal
from typing import Any

import click

from bench.cli import (
    assets,
    curate,
    doctor,
    evaluate,
    export,
    plugins,
    power,
    pretrain,
    rehearse,
    report,
    run,
    tune,
    types,
)
from bench.errors import BenchError, concerns_a_path, of_path, one_line
from bench.launch import signals
from bench.machine.environment import check_environment


class _Stoppable(click.Group):
    """Turns Ctrl-C and the signals that ask to stop into one line, in every command, and status 128 + the signal's."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with signals.stoppable():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            pass
        except Exception as error:  # libraries make errors of their own of a stop, as when it comes during an import
            if signals.heard() is None or isinstance(error, (BenchError, click.ClickException, click.exceptions.Exit)):
                raise
        click.echo("bench: stopped; everything recorded is kept, and the same command resumes", err=True)
        ctx.exit(128 + (signals.heard() or signal.SIGINT))


class _OneLineErrors(_Stoppable):
    """Turns errors that the user can mend into one line and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BenchError as error:
            _end(ctx, error)
        except click.UsageError as error:
            raise click.UsageError(one_line(error.format_message()), error.ctx) from error
        except OSError as error:
            if not concerns_a_path(error):
                raise
            _end(ctx, of_path(error))


def _end(ctx: click.Context, error: BenchError) -> None:
    click.echo("\n  ".join([f"bench: {error}", *error.details]), err=True)
    ctx.exit(1)


@click.group(cls=_OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="flow-bench", prog_name="bench")
def main() -> None:
    """Compare ways of post-training a text-to-image flow model at equal compute.

    \b
    Three methods under one budget, and a report in reports/high_aesthetic/:
        bench run --methods sft,soar,flow_grpo --subset high_aesthetic
    The paper's protocol, equal steps, three seeds:
        bench run --methods sft,soar --budget steps=100 --seeds 0,1,2 --name steps
    A method's knob (see them with `bench list --config soar`):
        bench run --methods soar --set soar.aux_points=2 --name few-points
    Draw a report again, from records alone:
        bench report runs/high_aesthetic
    What there is, and what runs on this machine:
        bench list
        bench doctor
    A model, a fine-tune, a LoRA or images on a suite, without training:
        bench evaluate tiny-sd3
    Settings chosen fairly; a method of your own, written and held to the promises:
        bench tune --methods sft,soar
        bench new method my_method
        bench check my_method/my_method.py
    A trained model as a diffusers folder or a LoRA:
        bench export runs/high_aesthetic/sft--high_aesthetic--s0 --out exports/sft
    """
    check_environment()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Threads that spin for long while they wait slow a step several times when anything else runs on the same cores;
    # ten thousand turns cost an idle machine nothing (250 ms a step instead of 247).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")


for _command in (
    run.run,
    rehearse.rehearse,
    tune.tune,
    evaluate.evaluate,
    evaluate.score,
    report.report,
    report.archive,
    power.power,
    power.noise,
    export.export,
    curate.curate,
    plugins.list_,
    plugins.check,
    plugins.new,
    assets.assets,
    doctor.doctor,
    pretrain.pretrain,
):
    types.refuse_empty(_command)
    main.add_command(_command)
