"""The model card of a job's weights: everything that its records say, in the form that the Hugging Face hub reads."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bench import records
from bench.backbone.source import Source, read_source
from bench.backbone.weights import find_weights
from bench.errors import shown
from bench.records.schema import JobRecord
from bench.report import tables
from bench.report.study import StudiedJob, Study, read_job
from bench.report.tables import MainCell, MainRow, Section
from bench.report.text import count, scientific, shortened
from bench.sampling.levels import SHIFTED

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

Form = Literal["pipeline", "transformer", "lora"]
"""What lies beside the card: a whole pipeline, just the transformer, or an adapter."""

TEMPLATE = """---
{{ front }}
---
{% if notice %}
> **{{ notice }}**
{% endif %}
# {{ title }}

{{ what }} {{ backbone }}, trained by {{ record.method }} on the subset {{ record.subset }} of the corpus \
{{ experiment.corpus }} under a budget of {{ experiment.budget }}.

## How to load it

```python
{{ code }}
```

`"{{ root }}"` is {{ place }}, or the id that it has on the hub. The call samples with the settings of the evaluation \
below. On a GPU, pass `torch_dtype=torch.bfloat16` and move the pipeline with `.to("cuda")`.

## How it was trained

| | |
| --- | --- |
{% for name, value in training %}| {{ name }} | {{ value }} |
{% endfor %}
The whole configuration of {{ record.method }}:

```json
{{ config }}
```

What was spent, evaluation excluded; forwards and backwards are in samples:

| FLOPs | Share of the budget |{% for name, _ in spent %} {{ name }} |{% endfor %}
| --- | --- |{% for _ in spent %} --- |{% endfor %}
| {{ flops }} | {{ share }} |{% for _, value in spent %} {{ value }} |{% endfor %}

## What it scores

| Metric | Prompts | Images | This model | {{ backbone }}, untrained | Difference |
| --- | --- | --- | --- | --- | --- |
{% for metric, prompts, images, value, start, change in scores %}\
| {{ metric }} | {{ prompts }} | {{ images }} | {{ value }} | {{ start }} | {{ change }} |
{% endfor %}
{% for note in notes %}- {{ note }}
{% endfor %}
Suite {{ suite.name }} v{{ suite.version }}: {{ suite.sampler.steps }} sampling steps, guidance \
{{ "%g" | format(suite.sampler.guidance_scale) }}, {{ suite.sampler.resolution }} px. Base and \
model start from the same noise.

## Where it comes from

| | |
| --- | --- |
{% for name, value in provenance %}| {{ name }} | {{ value }} |
{% endfor %}
## Licence

{{ licence_text }}
"""


def write_card(job: Path) -> Path:
    """Write ``README.md`` into a job's folder, beside its ``weights/``, and return its path.

    Call it when the weights and the last evaluation are written. Equal records give equal bytes. BenchError, in one
    line, where a record or the weights are missing or damaged.
    """
    study, weights = read_job(job), find_weights(job, check=False)  # only their kind is told
    source = read_source(job.parent)
    path = job / "README.md"
    records.write_bytes(path, card(study, source, weights.kind, "weights", source.folder_if_here()).encode())
    return path


def card(study: Study, source: Source, form: Form, root: str, folder: Path | None) -> str:
    """The card of a study of one job (``read_job``).

    Args:
        study: the job and its base.
        source: where the pretrained weights are from.
        form: what lies under ``root``.
        root: the folder, relative to the card, that the loading code names.
        folder: the backbone's, whose card states the licence; None where it is not at hand.
    """
    (job,) = study.jobs
    if job.record is None:
        raise ValueError(f"{job.name} has no job.json")
    (section,) = tables.main_sections(study)
    base, row = section.rows
    terms = licence(folder, source)
    backbone = source.name if source.kind == "hub" else study.experiment.backbone
    # Names, notices and prompts come from the records: they are text, never markup.
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, finalize=_literal)
    text = environment.from_string(TEMPLATE).render(
        front=Markup(_front(study, job, row, source, form, terms)),
        notice=study.experiment.notice.strip(),
        title=f"{study.experiment.name}: {job.name}",
        what={
            "pipeline": "A complete pipeline with the fine-tuned transformer of",
            "transformer": "The fine-tuned transformer of",
            "lora": "A LoRA adapter for",
        }[form],
        backbone=backbone,
        record=job.record,
        experiment=study.experiment,
        suite=study.experiment.suite,
        code=Markup(_code(study, job, source, form, root)),
        root=Markup(root),
        place="this folder" if root == "." else f"the folder {root} beside this card",
        training=_training(study, job, job.record),
        config=Markup(json.dumps(job.record.config, indent=1, ensure_ascii=False)),
        flops=scientific(job.spent.flops),
        share=row.share_text,
        spent=[(n.replace("_", " ").capitalize(), count(getattr(job.spent, n))) for n in tables.COUNTS],
        scores=[_score(c, start) for c, start in zip(row.cells, base.cells, strict=True)],
        notes=_notes(study, section, row),
        provenance=_provenance(study, job.record, source, backbone),
        licence_text=_licence_text(backbone, terms),
    )
    return shown(text, keep="\n\t")


def licence(folder: Path | None, source: Source) -> dict[str, str]:
    """``license``, ``license_name`` and ``license_link`` that the backbone's own card states; empty where it has none.

    A link to a file of the backbone is made one to the hub, where the backbone is from there.
    """
    readme = folder / "README.md" if folder else None
    if readme is None or not readme.is_file():
        return {}
    from huggingface_hub import metadata_load

    try:
        stated = metadata_load(readme) or {}
    except Exception:  # a stranger's card: whatever is wrong with it, it states no licence
        return {}
    keys = ("license", "license_name", "license_link")
    terms = {key: " ".join(stated[key].split()) for key in keys if isinstance(stated.get(key), str)}
    link = terms.get("license_link")
    if link and "://" not in link and source.kind == "hub":
        terms["license_link"] = f"https://huggingface.co/{source.name}/blob/{source.revision or 'main'}/{link}"
    return terms


def _front(study: Study, job: StudiedJob, row: MainRow, source: Source, form: Form, terms: dict[str, str]) -> str:
    """The YAML front matter, checked by ``huggingface_hub``."""
    from huggingface_hub import EvalResult, ModelCardData

    assert job.record is not None
    suite = study.experiment.suite
    results = [
        EvalResult(
            task_type="text-to-image",
            dataset_type=suite.name,
            dataset_name=f"{c.metric.prompt_set} of {suite.name} v{suite.version}",
            metric_type=c.metric.name,
            metric_name=f"{c.metric.label}, the training reward" if c.trained_on else c.metric.label,
            metric_value=shortened(c.cell.estimate.mean),
        )
        for c in row.cells
        if c.cell.estimate
    ]
    known: dict[str, Any] = dict(terms)
    if source.kind != "folder":  # a path is no id, and the hub refuses it
        known["base_model"] = source.name
        known["base_model_relation"] = "adapter" if form == "lora" else "finetune"
    tags = ["text-to-image", "diffusers", "stable-diffusion-3", job.method, *(["lora"] if form == "lora" else [])]
    data: ModelCardData = ModelCardData(
        **known,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=tags,
        model_name=f"{study.experiment.name}: {job.name}" if results else None,
        eval_results=results or None,
    )
    return data.to_yaml()


def _code(study: Study, job: StudiedJob, source: Source, form: Form, root: str) -> str:
    """Python that loads the weights and draws one prompt of the suite. Strings are written as literals: no markup."""
    sampler, tokens = study.experiment.suite.sampler, study.experiment.max_sequence_length
    base = repr(source.name)
    if source.kind == "registered":
        base = f"loader.find({source.name!r}).folder"
    elif source.kind == "hub" and source.revision:
        base = f"{source.name!r}, revision={source.revision!r}"
    lines = ["from bench.backbone import loader"] if source.kind == "registered" and form != "pipeline" else []
    if form == "pipeline":
        lines = ["from diffusers import StableDiffusion3Pipeline", ""]
        lines += [f'pipeline = StableDiffusion3Pipeline.from_pretrained("{root}")']
    elif form == "transformer":
        lines = ["from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline", *lines, ""]
        lines += [f'transformer = SD3Transformer2DModel.from_pretrained("{root}", subfolder="transformer")']
        lines += [f"pipeline = StableDiffusion3Pipeline.from_pretrained({base}, transformer=transformer)"]
    else:
        lines = ["from diffusers import StableDiffusion3Pipeline", *lines, ""]
        lines += [f"pipeline = StableDiffusion3Pipeline.from_pretrained({base})"]
        lines += [f'pipeline.load_lora_weights("{root}")']
    prompt = next((s.prompt for evaluation in job.evaluations for s in evaluation.samples), "a photo of a cat")
    arguments = [
        repr(prompt),
        # Of levels that are given to it, the scheduler shifts each once.
        f"sigmas=[i / {sampler.steps} for i in range({sampler.steps}, 0, -1)]"
        if sampler.levels == SHIFTED
        else f"num_inference_steps={sampler.steps}",
        f"guidance_scale={sampler.guidance_scale:g}",
        f"height={sampler.resolution}",
        f"width={sampler.resolution}",
        *([f"max_sequence_length={tokens}"] if tokens else []),
    ]
    lines += ["image = pipeline(", *(f"    {argument}," for argument in arguments), ").images[0]"]
    return "\n".join([*lines, 'image.save("picture.png")'])


def _training(study: Study, job: StudiedJob, record: JobRecord) -> list[tuple[str, str]]:
    rewards = {metric.name: metric.label for metric in study.metrics}
    rows = [
        ("Method", job.method),
        ("Paper", record.traits.get("paper", "")),
        ("Trains", record.traits.get("trains", "")),
        ("Corpus", study.experiment.corpus),
        ("Subset", job.subset),
        ("Pairs", count(record.subset_count) if record.subset_count is not None else ""),
        ("Subset's hash", record.subset_hash or ""),
        ("Resolution", f"{study.experiment.resolution} px" if study.experiment.resolution else ""),
        ("Training reward", f"{rewards.get(record.reward, record.reward)} †" if record.reward else "none"),
        ("Seed", str(job.seed)),
        ("Budget", study.experiment.budget),
    ]
    return [(name, value) for name, value in rows if value]


def _score(c: MainCell, base: MainCell) -> tuple[str, ...]:
    change = tables.difference_text(c.metric, c.to_base) if c.to_base else "–"
    value = tables.cell_text(replace(c, best=False))  # with one row to compare with, nothing is ranked
    start = tables.cell_text(replace(base, best=False))
    return c.metric.heading, c.metric.prompt_set, count(c.metric.images), value, start, change


def _notes(study: Study, section: Section, row: MainRow) -> list[str]:
    lines = tables.interval_notes(study, [row])
    lines.append("Difference: to the untrained model, paired by prompt, with its 95 % interval.")
    if any(c.trained_on for c in row.cells):
        lines.append("† The model was trained on this metric as its reward, so it does not judge the model.")
    return lines + tables.gap_notes([row])


def _provenance(study: Study, record: JobRecord, source: Source, backbone: str) -> list[tuple[str, str]]:
    git = record.git
    changed = ", with uncommitted changes" if git.dirty else ""
    return [
        ("Backbone", f"{backbone}{f', revision {source.revision}' if source.revision else ''}"),
        ("Backbone's hash", study.experiment.backbone_hash),
        ("Commit of the harness", f"{git.commit or 'unknown'}{changed}"),
        *((name, str(version)) for name, version in sorted(record.versions.items())),
    ]


def _licence_text(backbone: str, terms: dict[str, str]) -> str:
    if not terms:
        return f"{backbone} states no licence in its folder. Its terms hold for these weights too."
    named = ", ".join(terms[key] for key in ("license_name", "license", "license_link") if key in terms)
    return f"That of {backbone}: {named}."


_MARKUP = re.compile(r"[\\`*|~$]|\](?=[\[(:])|(?<![^\W_])_|_(?![^\W_])")  # an _ inside a word is only itself


def _literal(value: Any) -> str:
    """One line in which neither Markdown nor HTML finds anything; markup of our own passes."""
    if isinstance(value, Markup):
        return str(value)
    return _MARKUP.sub(r"\\\g<0>", html.escape(" ".join(str(value).split()), quote=False))
