"""Evaluations as a page, from their run folders: `python docs/experts_pages/evaluation.py RUN [LIVE_RUN…] > PAGE`.

The first run has the conditions without a language model for all tasks; the others are of one model each.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from geoml.cli.tables import markdown
from geoml.runs.folder import RunFolder

__all__ = ["page"]

HEAD = """\
# What the experts add

`mcp-experts evaluate` asked {count} frozen questions per task; `python docs/experts_pages/evaluation.py RUN \
LIVE_RUN… > docs/experts-evaluation.md` writes this page. Classes are as balanced as the channels allow, every \
question is answered, and intervals are 95 %. Arms without a language model: {arms}. {left}

Questions `{questions}`, experts `{experts}`.
"""
LEFT = "{names} need a language model and were not run: no endpoint was available."
LIVE = """\
## With a language model

`mcp-experts evaluate arms=[A3,A5,A7] tasks=[los] questions=100 local=true weights=FILE.gguf`, with the task \
and number of questions of each row, on this machine, at temperature 0. {arms}. \
The server is as shipped: the model reads its instructions \
and tools, and chooses by itself whether to call one of the server's three tools or one of three others that no \
question needs. There are no examples in the prompt. Each question has one of 20 wordings. Tools, \
answers and prompt were revised on development questions: channels of another seed (`python \
docs/experts_pages/questions.py`), in other wordings. Of the questions below, `los-0`, `los-1`, `los-2`, `los-9`, \
`los-13`, `los-126`, `doppler-0` and `doppler-10` had been looked at during that work; the others had not.

An answer is right if it names the right option alone; `unparsable` names none or several and counts as wrong in \
`accuracy`, but not in `wrong`. `tool_recall`: share of questions in which the needed expert was asked, by \
`wireless_ask` or by `wireless_describe`. `faithful`: share of answers that are the expert's most likely label, \
which a model cannot know where the expert refuses, since then the server names none. \
`tokens`: in and out, of all turns. `seconds`: per question, on a machine that did other work too. Experts of these \
rows: {experts}.
"""
RECOVERED = """\
`points`: A5 less A3. `ceiling_recovery`: (A5 − A3) / (A7 − A3) on the same questions, with an interval of 95 % by \
resampling of questions, where A7 − A3 is at least 0.2.
"""
COLUMNS = ("n", "accuracy", "wrong", "unparsable", "tool_recall", "faithful", "tokens", "seconds")


def page(summary: Mapping[str, Any], live: Sequence[Mapping[str, Any]] = ()) -> str:
    """The tables of summaries of `mcp-experts evaluate`, in Markdown."""
    left = summary["left_out"]
    head = HEAD.format(
        count=max(row["n"] for row in summary["table"]),
        arms="; ".join(f"{arm} {about}" for arm, about in summary["arms"].items() if arm not in left),
        left=LEFT.format(names=", ".join(left)) if left else "",
        questions=summary["questions_sha256"][:12],
        experts=summary["experts_sha256"][:12],
    )
    rows: dict[str, dict[str, Any]] = {}
    for row in summary["table"]:
        entry = rows.setdefault(row["task"], {"task": row["task"]})
        entry[row["arm"]] = f"{row['accuracy']:.3f} [{row['low_95']:.3f}, {row['high_95']:.3f}]"
    parts = [head, "## Accuracy", markdown(list(rows.values()))]
    if live:
        parts += list(_live(live))
    passed = sum(summary["conformance"].values())
    parts += [
        "## The server",
        f"{passed} of {len(summary['conformance'])} checks of the protocol passed, in both eras.",
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _live(live: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Rows of models, with the expert alone below each, and what of its lead the models recover."""
    rows, recovered = [], []
    names = {arm: about for summary in live for arm, about in summary["arms"].items()}
    for summary in live:
        for row in summary["table"]:
            cells = {name: _number(row[name]) for name in COLUMNS if row.get(name) is not None}
            cells["accuracy"] = f"{row['accuracy']:.3f} [{row['low_95']:.3f}, {row['high_95']:.3f}]"
            model = row["model"] if row["model"] != "–" else "none"
            rows.append(
                {"task": row["task"], "model": model, "arm": row["arm"], **dict.fromkeys(COLUMNS, "–"), **cells}
            )
        recovered += [
            {"task": row["task"], "model": summary["model"], **{name: _number(row[name]) for name in list(row)[1:]}}
            for row in summary["comparison"]
        ]
    rows.sort(key=lambda row: (row["task"], row["model"], row["arm"]))
    known = list(dict.fromkeys(tuple(row.items()) for row in rows))
    yield LIVE.format(
        arms="; ".join(f"{arm} {names[arm]}" for arm in sorted(names)),
        experts=", ".join(sorted({f"`{summary['experts_sha256'][:12]}`" for summary in live})),
    )
    yield markdown([dict(row) for row in known])
    if recovered:
        yield RECOVERED
        yield markdown(recovered)


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "–" if value is None else str(value)


if __name__ == "__main__":
    found = [RunFolder.load(name).summary for name in sys.argv[1:]]
    print(page(found[0], found[1:]), end="")
