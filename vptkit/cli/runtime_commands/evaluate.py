"""`vptkit eval`: how often a bundle is right on labelled images, and where not.

No future import of annotations here: typer reads them at run time.
"""

from pathlib import Path
from typing import Annotated

import typer

from vptkit.cli.shared.options import (
    AllowOutside,
    AsJson,
    Backend,
    BundleArgument,
    Columns,
    Decode,
    Force,
    SkipBroken,
    Threads,
    TrustEngines,
)
from vptkit.cli.shared.output import announce, emit
from vptkit.cli.shared.verdict import next_command, wrote
from vptkit.formats.manifest_schema import MULTILABEL
from vptkit.shown_text import tell

__all__ = ["evaluate_bundle"]


def evaluate_bundle(
    bundle: BundleArgument,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="One folder per class, or train/ test/; a CSV of path,label[,split]; COCO; WebDataset.",
        ),
    ],
    split: Annotated[str | None, typer.Option(help="Which split of DATA [test].")] = None,
    adapter: Annotated[str | None, typer.Option(help="Which adapter of a bank.")] = None,
    backend: Backend = None,
    batch: Annotated[int, typer.Option(min=1, help="Images for each run.")] = 8,
    save: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--save",
            "--output",
            help="Write all mistakes, the most confident first: .csv or .jsonl.",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the confusion matrix: .png, .svg or .pdf.")
    ] = None,
    reject: Annotated[
        float | None,
        typer.Option(help="Also measure what run --reject does at this rate, as 0.05."),
    ] = None,
    ood: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="With --reject: images of other things than the labels."),
    ] = None,
    force: Force = False,
    columns: Columns = None,
    skip_broken: SkipBroken = False,
    decode: Decode = None,
    allow_outside: AllowOutside = False,
    threads: Threads = None,
    trust_engines: TrustEngines = False,
    as_json: AsJson = False,
) -> None:
    """Measure accuracy on a folder of classes: with its interval, by class, and what is confused."""
    from vptkit.api.judging import evaluate
    from vptkit.plot_text import require_plot
    from vptkit.progress import progress
    from vptkit.runtime.evaluation.confusion_plot import plot_confusion
    from vptkit.runtime.evaluation.evaluation_text import evaluation_text
    from vptkit.runtime.evaluation.mistakes_file import require_mistakes_file, write_mistakes
    from vptkit.runtime.evaluation.multilabel_result import MultilabelEvaluation
    from vptkit.runtime.evaluation.multilabel_text import multilabel_text
    from vptkit.runtime.session.factory import open_session

    if ood is not None and reject is None:
        raise typer.BadParameter("goes with --reject only", param_hint="--ood")
    if save is not None:
        require_mistakes_file(save, force=force)
    if plot is not None:
        require_plot(plot, force=force)
    session = open_session(bundle, backend, threads, trust_engines=trust_engines)
    announce(session, backend)
    if session.bundle.task == MULTILABEL and plot is not None:
        raise typer.BadParameter(
            f"draws which class is taken for which, and images of {bundle} may have several labels. "
            "Leave it away: the table says how each label fares, --json all of them",
            param_hint="--plot",
        )
    with progress("eval") as bar:
        result = evaluate(
            session,
            data,
            adapter=adapter,
            split=split,
            allow_outside=allow_outside,
            skip_broken=skip_broken,
            columns=columns,
            decode=decode,
            reject=reject,
            ood=ood,
            batch=batch,
            progress=bar,
        )
    several = isinstance(result, MultilabelEvaluation)
    more = result.rejection.notes if result.rejection else []
    for note in (*result.notes, *more):
        tell(f"note: {note}")
    if save is not None:
        write_mistakes(result.mistakes, save, several=several)
    if plot is not None and not isinstance(result, MultilabelEvaluation):
        plot_confusion(result, plot, adapter or session.bundle.name)
    document = {
        "bundle": str(bundle),
        "backend": session.backend,
        "decode": session.bundle.preprocess.reading(decode).decode,
        **result.to_json(),
    }
    rates = [result.rejection.text()] if result.rejection else []
    written = [path for path in (save, plot) if path is not None]
    ending = [wrote(*written)] if written else []
    if result.mistakes and save is None:
        ending += [
            next_command("eval", bundle, data, *_chosen(split, adapter), "--save", "wrong.csv")
        ]
    else:
        ending += [next_command("profile", bundle)]
    told = (
        multilabel_text(result)
        if isinstance(result, MultilabelEvaluation)
        else evaluation_text(result)
    )
    emit(document, as_json, text="\n".join([told, *rates, *ending]))


def _chosen(split: str | None, adapter: str | None) -> list[str]:
    """What of the data and of a bank was chosen, as it was typed."""
    named = {"--split": split, "--adapter": adapter}
    return [word for name, value in named.items() if value for word in (name, value)]
