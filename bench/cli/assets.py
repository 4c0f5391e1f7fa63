"""``bench assets``: prompt files and models that the repository does not hold."""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli import options, types
from bench.cli.printing import say
from bench.errors import BenchError


@click.group()
def assets() -> None:
    """Prompt files and models that the real suites need and the repository does not hold.

    \b
        bench assets list
        bench assets fetch drawbench_prompts aesthetic_head clip_vit_l14
        bench assets fetch --from /media/disk      (no network: found there by content)
        bench assets verify
    """


@assets.command("list")
@options.cache
def list_assets(cache: Path) -> None:
    """Every asset: whether it is here, its size, what it is, its licence and its source."""
    from bench import assets as store

    def size(number: int) -> str:
        return f"{number / 1e9:.1f} GB" if number >= 1e8 else f"{number / 1e3:,.1f} kB"

    here = 0
    for name, asset in store.TABLE.items():
        state = store.state(name, cache, hashed=False)
        here += asset.size if state == "present" else 0
        say(f"{name:<22} {state:<8} {size(asset.size):>10}  {asset.what}")
        say(f"{'':<22} licence: {asset.licence}")
        say(f"{'':<22} from:    {asset.source}")
    total = sum(asset.size for asset in store.TABLE.values())
    say(f"{len(store.TABLE)} assets, {size(total)}; {size(here)} are here")


@assets.command("fetch")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--suite", help="All that a suite's prompts and metrics need.")
@click.option("--from", "source", type=types.PATH, help="Folder of this machine to copy from, instead of the network.")
@options.cache
def fetch_assets(names: tuple[str, ...], suite: str | None, source: Path | None, cache: Path) -> None:
    """Fetch NAMEs, or every small file where none is given; what has 100 MB and more is fetched by name or --suite."""
    from bench import assets as store
    from bench.assets.kinds import File

    wanted = [*names, *(store.of_suite(suite, cache, source) if suite else ())]
    if suite and not wanted:
        say(f"the suite {suite} needs no asset")
        return
    chosen = [store.get(name) for name in wanted] or [
        a for a in store.TABLE.values() if isinstance(a, File) and a.size < 1e8
    ]
    failed = []
    for asset in chosen:
        try:
            say(f"{asset.name}: {store.fetch(asset.name, cache, source)}")
        except BenchError as error:
            failed.append(str(error))
    if failed:
        others = f" (and {len(failed) - 1} more of {len(chosen)})" if len(failed) > 1 else ""
        raise BenchError(failed[0] + others)


@assets.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@options.cache
def verify_assets(names: tuple[str, ...], cache: Path) -> None:
    """Hash what is here. Ends with status 1 where something differs or a NAMEd asset is missing."""
    from bench import assets as store

    bad = []
    for name in [store.get(name).name for name in names] or list(store.TABLE):
        state = store.state(name, cache, hashed=True)
        say(f"{name:<22} {state}")
        if state.startswith("differs") or (state == "missing" and names):
            bad.append(name)
    if bad:
        raise BenchError(f"not as they should be: {', '.join(bad)}; run `bench assets fetch {' '.join(bad)}`")
