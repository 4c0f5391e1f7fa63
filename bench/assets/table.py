"""Everything that the real suites need and the repository does not hold: one table, and where each thing lies.

Nothing is fetched but by ``bench assets fetch``.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from bench.assets.kinds import Asset, Differs, File, HubModel, sha256_of
from bench.errors import BenchError, Missing, unknown

_RAW = "https://raw.githubusercontent.com"

TABLE: dict[str, Asset] = {
    asset.name: asset
    for asset in (
        File(
            "drawbench_prompts",
            "DrawBench, 200 prompts x 5 lines",
            65_164,
            "Apache-2.0 (DiffusionNFT); the prompts are Imagen's (arXiv 2205.11487), whose licence is not stated",
            stand_in=False,
            url=f"{_RAW}/NVlabs/DiffusionNFT/24af5554898d85e93efa492f42b5e9cdf4156e9b/dataset/drawbench/test.txt",
            sha256="9006b98feabb94b28a2bc0c88de42fd4f31a9ec3c2a19e308a02c5385b7172f0",
        ),
        File(
            "geneval_prompts",
            "GenEval, 553 prompts with their facts",
            85_209,
            "MIT (geneval)",
            stand_in=False,
            url=f"{_RAW}/djghosh13/geneval/af4902f24d3ca90ebbb446dd9891a59e0f82725f/prompts/evaluation_metadata.jsonl",
            sha256="5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13",
        ),
        File(
            "geneval_classes",
            "GenEval, the names of its 80 classes",
            642,
            "MIT (geneval)",
            stand_in=False,
            url=f"{_RAW}/djghosh13/geneval/af4902f24d3ca90ebbb446dd9891a59e0f82725f/prompts/object_names.txt",
            sha256="608f6a0e5c8ca1c7a92b818430141fe268c85b7930b50f4160f1d65893b5bacd",
        ),
        File(
            "ocr_prompts",
            "OCR, 1,018 prompts",
            217_565,
            "MIT (flow_grpo)",
            stand_in=False,
            url=f"{_RAW}/yifan123/flow_grpo/ac4c86e8cae021841f1fde853d340e0db67690dd/dataset/ocr/test.txt",
            sha256="4dd8caf3ab6ade73bd376c7d14c6ca49b6eacfb1bd321e22c40714ae4a98d4dc",
        ),
        File(
            "aesthetic_head",
            "LAION aesthetic predictor, the MLP on CLIP L/14",
            3_714_759,
            "Apache-2.0 (improved-aesthetic-predictor)",
            stand_in=True,
            url=f"{_RAW}/christophschuhmann/improved-aesthetic-predictor/6934dd81792f086e613a121dbce43082cb8be85e/"
            "sac%2Blogos%2Bava1-l14-linearMSE.pth",
            sha256="21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
        ),
        File(
            "geneval_detector",
            "GenEval's detector, mmdet's Mask2Former Swin-S",
            276_000_000,
            "Apache-2.0 (mmdetection)",
            stand_in=True,
            url="https://download.openmmlab.com/mmdetection/v2.0/mask2former/"
            "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco/"
            "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco_20220504_001756-743b7d99.pth",
            sha256="743b7d99",  # the first digits, in its name; no public source gives the others
        ),
        HubModel(
            "clip_vit_l14",
            "OpenAI's CLIP ViT-L/14, for clipscore and aesthetic",
            1_714_000_000,
            "MIT (openai/CLIP); the hub page states none",
            stand_in=True,
            repo="openai/clip-vit-large-patch14",
            revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
            files={
                "config.json": "8a09b467700c58138c29d53c605b34ebc69beaadd13274a8a2af8ad2c2f4032a",
                "merges.txt": "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a",
                "model.safetensors": "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
                "preprocessor_config.json": "910e70b3956ac9879ebc90b22fb3bc8a75b6a0677814500101a4c072bd7857bd",
                "special_tokens_map.json": "f8c0d6c39aee3f8431078ef6646567b0aba7f2246e9c54b8b99d55c22b707cbf",
                "tokenizer.json": "a83e0809aa4c3af7208b2df632a7a69668c6d48775b3c3fe4e1b1199d1f8b8f4",
                "tokenizer_config.json": "deef455e52fa5e8151e339add0582e4235f066009601360999d3a9cda83b1129",
                "vocab.json": "3f0c4f7d2086b61b38487075278ea9ed04edb53a03cbb045b86c27190fa8fb69",
            },
        ),
        HubModel(
            "pickscore_v1",
            "PickScore v1, a CLIP ViT-H/14 fitted to people's choices",
            3_944_600_000,
            "none stated on the hub page",
            stand_in=True,
            repo="yuvalkirstain/PickScore_v1",
            revision="a4e4367c6dfa7288a00c550414478f865b875800",
            files=dict.fromkeys(("config.json", "model.safetensors")),
        ),
        HubModel(
            "clip_vit_h14_processor",
            "Tokenizer and preprocessor of LAION's CLIP ViT-H/14, for pickscore",
            6_000_000,
            "MIT",
            stand_in=True,
            repo="laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
            revision="1c2b8495b28150b8a4922ee1c8edee224c284c0c",
            files=dict.fromkeys(
                (
                    "merges.txt",
                    "preprocessor_config.json",
                    "special_tokens_map.json",
                    "tokenizer.json",
                    "tokenizer_config.json",
                    "vocab.json",
                )
            ),
        ),
        File(
            "hpsv2_1",
            "HPSv2.1, open_clip's ViT-H-14 fitted to people's choices",
            1_972_490_005,
            "Apache-2.0 (tgxs002/HPSv2)",
            stand_in=True,
            url="https://huggingface.co/xswu/HPSv2/resolve/697403c78157020a1ae59d23f111aa58ced35b0a/"
            "HPS_v2.1_compressed.pt",
            sha256="c57a38fb4a2f7e7c15bf00da2ea377cdf165448b4dd1052a484c215a998c9837",
        ),
        HubModel(
            "imagereward_v1",
            "ImageReward v1.0, BLIP and an MLP",
            1_786_900_000,
            "Apache-2.0",
            stand_in=True,
            repo="THUDM/ImageReward",
            revision="5736be03b2652728fb87788c9797b0570450ab72",
            files={"ImageReward.pt": None},
        ),
        File(
            "bert_vocabulary",
            "BERT's uncased vocabulary, for imagereward",
            231_508,
            "Apache-2.0",
            stand_in=True,
            url="https://huggingface.co/google-bert/bert-base-uncased/resolve/"
            "86b5e0934494bd15c9632b12f734a8a67f723594/vocab.txt",
            sha256="07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        ),
        File(
            "lpips_alexnet",
            "torchvision's AlexNet, for lpips_diversity",
            244_408_911,
            "BSD-3-Clause (pytorch/vision)",
            stand_in=True,
            url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
            sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        ),
        File(
            "lpips_heads",
            "LPIPS 0.1, the weights of AlexNet's channels",
            6_009,
            "BSD-2-Clause (PerceptualSimilarity)",
            stand_in=True,
            url=f"{_RAW}/richzhang/PerceptualSimilarity/082bb24f84c091ea94de2867d34c4544f68e0963/"
            "lpips/weights/v0.1/alex.pth",
            sha256="df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
        ),
        HubModel(
            "sd35_medium",
            "Stable Diffusion 3.5 Medium, the paper's backbone",
            16_300_000_000,
            "Stability AI Community License, to be accepted on the hub (gated)",
            stand_in=False,
            repo="stabilityai/stable-diffusion-3.5-medium",
            revision="b940f670f0eda2d07fbb75229e779da1ad11eb80",
            files=dict.fromkeys(
                (
                    "model_index.json",
                    "text_encoder/model.safetensors",
                    "text_encoder_2/model.safetensors",
                    "text_encoder_3/model-00001-of-00002.safetensors",
                    "text_encoder_3/model-00002-of-00002.safetensors",
                    "transformer/diffusion_pytorch_model.safetensors",
                    "vae/diffusion_pytorch_model.safetensors",
                )
            ),
            patterns=("model_index.json", "*/*.json", "*/*.txt", "*/*.model", "*/*.safetensors"),
            ignored=("*fp16*", "text_encoders/*"),  # second copies of the same encoders
        ),
    )
}
"""Files and hashes: docs/protocol.md's sources, compared with those repositories at those commits, as are the licences.
The revisions and CLIP's hashes are those that several unrelated public projects pin."""


def cache_folder() -> Path:
    """The cache folder: ``BENCH_CACHE``, or ``cache`` here. ``--cache`` of a command goes over it."""
    return Path(os.environ.get("BENCH_CACHE") or "cache")


def get(name: str) -> Asset:
    """An asset of the table; a mistyped name ends in one line."""
    if name not in TABLE:
        raise unknown("asset", name, TABLE)
    return TABLE[name]


def path(name: str, cache: Path | None = None) -> Path:
    """Where an asset lies, checked by its hashes; a stand-in as it is.

    Raises:
        Missing: it is not here; the line says how to get it.
        BenchError: it differs.
    """
    asset, folder = get(name), cache or cache_folder()
    if (other := _stand_in(asset)) is not None:
        return other
    home = asset.find(folder)
    if home is None:
        raise Missing(
            f"asset {name} is missing; run `bench assets fetch {name}`, or without a network {asset.by_hand} "
            f"(looked in {asset.home(folder)})",
            name,
        )
    try:
        asset.check(home)
    except Differs as error:
        raise BenchError(f"asset {name} is not what it should be: {error}; run `bench assets fetch {name}`") from error
    return home


STAND_IN = "stand-in sha256:"
"""How the ``identity`` of what stands in for an asset begins."""


def identity(name: str) -> str:
    """What pins an asset, for records: its SHA-256, its hub revision, or a digest of the stand-in that replaces it."""
    other = _stand_in(get(name))
    if other is None:
        return get(name).identity
    parts = [other] if other.is_file() else sorted(path for path in other.rglob("*") if path.is_file())
    return STAND_IN + hashlib.sha256("".join(sha256_of(part) for part in parts).encode()).hexdigest()


def here(name: str, cache: Path) -> bool:
    """Whether an asset, or what stands in for it, is on this machine; its hashes are not looked at."""
    asset = get(name)
    return _stand_in(asset) is not None or asset.find(cache) is not None


def state(name: str, cache: Path, *, hashed: bool) -> str:
    """``present`` or ``missing``; ``hashed`` reads it whole: ``differs: …``, or the kind's word for a good copy."""
    asset = get(name)
    home = asset.find(cache)
    if home is None or not hashed:
        return "missing" if home is None else "present"
    try:
        asset.check(home)
    except Differs as error:
        return f"differs: {error}"
    return asset.verdict


def fetch(name: str, cache: Path, source: Path | None = None) -> Path:
    """Get an asset, from its source or from a folder, unless it is there and right. Returns where it lies.

    Raises:
        BenchError: it could not be had, or what was found has another hash.
    """
    asset = get(name)
    home = asset.find(cache)
    try:
        if home is not None:
            asset.check(home)
            return home
    except Differs:
        pass  # a damaged copy is fetched anew
    if source is None:
        asset.download(cache, anew=home is not None)
    elif not source.is_dir():
        raise BenchError(f"the folder {source} is not there")
    else:
        asset.copy(source, cache)
    return path(name, cache)


def of_suite(name: str, cache: Path, source: Path | None = None) -> list[str]:
    """What a suite's prompts and metrics need. Its prompt files are fetched for that, as it is not built without them.

    The suite looks for them in ``cache_folder()``, which has to be ``cache``.

    Raises:
        BenchError: there is no such suite, or a prompt file could not be had.
    """
    from bench import registry

    build, prompts = registry.load("suites", name), []
    while True:
        try:
            suite = build()
            break
        except Missing as error:
            fetch(error.asset, cache, source)
            prompts.append(error.asset)
    metrics = [asset for metric, _ in suite.metrics() for asset in registry.load("metrics", metric).assets]
    return list(dict.fromkeys([*prompts, *metrics]))


def _stand_in(asset: Asset) -> Path | None:
    variable = f"BENCH_ASSET_{asset.name.upper()}"
    if not os.environ.get(variable):
        return None
    other = Path(os.environ[variable])
    if not asset.stand_in:
        raise BenchError(
            f"{variable} is set, but {asset.name} has no stand-in: a suite's version depends on it; unset {variable}"
        )
    if not other.exists():
        raise BenchError(f"{variable} names {other}, which is not there")
    return other
