"""`accord check --data`: what is wrong with a data set, and a copy without it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from accord.console import say
from accord.data import quality
from accord.data.dropped import Dropped
from accord.data.quality import KINDS, Quality
from accord.data.records import Record, to_row
from accord.data.sources import check, read
from accord.errors import CheckFailed, DataError, RecipeError
from accord.recipe import Source
from accord.run import write_file

SAMPLE = 200  # records whose distance from a model is measured


def check_data(data: str, against: Sequence[str], clean: Path | None, model: str | None) -> None:
    """`accord check --data`."""
    source = Source(source=data, on_error="skip")
    others = [Source(source=other, on_error="skip") for other in against]
    for where, one in (("--data", source), *(("--against", other) for other in others)):
        check(one, where)
    if clean and clean.exists():
        raise RecipeError("--clean", f"{clean} is there already", "name a file that is not")
    if clean and not clean.parent.is_dir():
        raise RecipeError("--clean", f"there is no folder {clean.parent}", "make it, or name a file in another")

    def records(dropped: Dropped) -> Iterator[Record]:
        return read(source, dropped, "--data")

    found = quality.inspect(records, against=[read(other, Dropped(), "--against") for other in others])
    if not found.records + found.dropped.total:
        raise DataError("--data", f"there is no record in {data}", "give another file")
    print(shown(found))
    if model:
        from accord.cli.distance import distance  # PyTorch, which nothing else here needs

        print(f"\n{distance(model, list(islice(records(Dropped()), SAMPLE)))}")
    if clean:
        kept = quality.clean(found, records)

        def fill(draft: Path) -> None:
            with draft.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(to_row(record), ensure_ascii=False) + "\n" for record in kept)

        write_file(clean, fill)
        say(f"{found.records - len(found.left_out):,} records written to {clean}")
    bad = len(found.left_out) + found.dropped.total
    if bad and not clean:
        raise CheckFailed(data, f"{bad:,} of {found.records + found.dropped.total:,} records are not fit to learn from",
                          "write a copy without them: --clean FILE")  # fmt: skip


def shown(found: Quality) -> str:
    """The findings as text."""
    kinds = ", ".join(f"{count:,} {name}" for name, count in found.kinds.most_common())
    lines = [
        _line(
            name, finding.count, KINDS[name][1] + ("" if KINDS[name][0] else " (only counted: a clean copy keeps it)")
        )
        for name, finding in found.findings.items()
    ]
    lines += [_line(name, reason.count, reason.example) for name, reason in found.dropped.reasons.items()]
    parts = [f"{found.records:,} records: {kinds}", "", *(lines or ["nothing wrong was found"])]
    examples = [
        f"{name.replace('_', ' ')}: {text}" for name, finding in found.findings.items() for text in finding.examples
    ]
    parts += ["", *examples] if examples else []
    parts += ["", "words on average: " + ", ".join(f"{name} {mean:.0f}" for name, mean in found.words.items())]
    if found.longer_chosen is not None:
        parts.append(f"the longer answer is the chosen one in {found.longer_chosen:.1%} of pairs{_length(found)}")
    spoken = [f"{name} {count / found.records:.1%}" for name, count in found.languages.most_common(5)]
    return "\n".join([*parts, "languages: " + ", ".join(spoken)])


def _line(name: str, count: int, meaning: str) -> str:
    return f"{name.replace('_', ' '):<16} {count:>9,}  {meaning}"


def _length(found: Quality) -> str:
    share = found.longer_chosen or 0.5
    if abs(share - 0.5) <= 0.1:
        return ""
    return ": a reward model can learn length instead of quality" if share > 0.5 else ": short answers are preferred"
