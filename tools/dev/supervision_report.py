"""From counts per scene to tables of trainings: metrics, paired differences with intervals, plot."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np  # noqa: E402

from projects.occ.atomic_write import write_atomically  # noqa: E402
from projects.occ.evaluation.functional import (  # noqa: E402
    DEPTH_METRICS,
    class_counts,
    holm,
    mean_iou,
    occupied_counts,
    paired_bootstrap,
    ratio_of_sums,
    ray_iou_of_counts,
)
from projects.occ.evaluation.functional.profile_sums import HARD  # noqa: E402
from projects.occ.evaluation.functional.ray_profile import FIELD_QUANTITIES  # noqa: E402
from tools.dev.benchmark_report import markdown_table  # noqa: E402

Counts = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Column:
    """One metric of the table.

    Attributes:
        title: Heading.
        reads: Name of the counts that it reads.
        value: (pooled counts (..., *), id of free space) -> (...).
        factor: To the unit of the table.
        digits: Behind the point.
        better: ``'higher'`` or ``'lower'``.
    """

    title: str
    reads: str
    value: Callable[[np.ndarray, int], np.ndarray]
    factor: float = 100
    digits: int = 2
    better: str = 'higher'


def _mean(counts: np.ndarray, free_index: int) -> np.ndarray:
    return ratio_of_sums(counts)


def _ray_iou(threshold: int | None) -> Callable[[np.ndarray, int], np.ndarray]:
    return lambda counts, free: ray_iou_of_counts(counts, free, threshold)


COLUMNS: dict[str, Column] = {
    'mIoU': Column('mIoU', 'voxels', mean_iou),
    'IoU': Column('IoU', 'occupied', _mean),
    'RayIoU@1': Column('RayIoU@1', 'rays', _ray_iou(0)),
    'RayIoU@2': Column('RayIoU@2', 'rays', _ray_iou(1)),
    'RayIoU@4': Column('RayIoU@4', 'rays', _ray_iou(2)),
    'img_mIoU': Column('image mIoU', 'images', mean_iou),
    'abs_rel': Column('depth abs rel', 'abs_rel', _mean, 1, 3, 'lower'),
    'ray_behind': Column('behind', 'ray_behind', _mean, better='lower'),
    'ray_spread': Column('spread (m)', 'ray_spread', _mean, 1, 2, 'lower'),
    'ray_surfaces': Column('surfaces', 'ray_surfaces', _mean, 1, 2, 'lower'),
    'floaters': Column('floaters', 'floaters', _mean, better='lower'),
}


def scene_counts(records: Mapping[str, np.ndarray], free_index: int) -> tuple[list[str], dict[str, np.ndarray]]:
    """Counts of every scene from what ``tools/test.py --records`` wrote.

    Args:
        records: Arrays of the file.
        free_index: Id of empty space.

    Returns:
        Names of the N scenes in their order, and arrays (N, ...) by what columns read, as far as the metrics were there.
    """
    scenes = list(dict.fromkeys(map(str, records['scenes'])))
    member = np.array([records['scenes'] == scene for scene in scenes])

    def pooled(frames: np.ndarray) -> np.ndarray:
        return np.stack([np.asarray(frames)[rows].sum(0) for rows in member])

    counts: dict[str, np.ndarray] = {}
    if 'OccupancyMetric' in records:
        hist = pooled(records['OccupancyMetric'])
        counts.update(voxels=class_counts(hist), occupied=occupied_counts(hist, free_index))
    if 'RayIoUMetric' in records:
        counts['rays'] = pooled(records['RayIoUMetric'])
    if 'RenderedImageMetric.camera' in records:
        counts['images'] = class_counts(pooled(records['RenderedImageMetric.camera']))
    if 'RayProfileMetric.hard' in records:
        hard = pooled(records['RayProfileMetric.hard']).sum((2, 3))
        counts.update({f'ray_{name}': hard[:, HARD.index(name)] for name in ('front', 'behind', 'surfaces')})
        tally = pooled(records['RayProfileMetric.counts'])
        counts.update(floaters=tally[:, :2], holes=tally[:, 2:])
    if 'RayProfileMetric.soft' in records:
        counts['ray_spread'] = pooled(records['RayProfileMetric.soft']).sum((2, 3))[:, FIELD_QUANTITIES.index('spread')]
    if 'RenderedDepthMetric.1' in records:
        # of all images that have a measured depth
        values = records['RenderedDepthMetric.1'][:, 0, :, DEPTH_METRICS.index('abs_rel')]
        known = ~np.isnan(values)
        counts['abs_rel'] = pooled(np.stack([np.where(known, values, 0).sum(1), known.sum(1)], -1))
    return scenes, counts


def values_of(counts: Counts, free_index: int) -> dict[str, float]:
    """Every column of one run from its counts (N, ...), pooled over the scenes; none where there is nothing to count."""
    found = {}
    for name, column in COLUMNS.items():
        if column.reads in counts:
            value = float(column.value(np.asarray(counts[column.reads], dtype=np.float64).sum(0), free_index))
            if not np.isnan(value):
                found[name] = value
    return found


def compare(runs: Sequence[Mapping[str, Any]], against: str, draws: int = 10000) -> dict[str, Any]:
    """Means and paired differences of the runs of one host.

    Args:
        runs: Dicts with ``row``, ``seed``, ``scenes``, ``free_index``, ``counts``.
        against: Row that the others are compared with.
        draws: Of the bootstrap.

    Returns:
        ``rows``, row -> metric -> mean, standard deviation and seeds; ``differences``, row -> metric -> difference, interval,
        p, p by Holm over all comparisons of the table, verdicts.

    Raises:
        ValueError: If runs of one row have different scenes.
    """
    by_row: dict[str, dict[int, Mapping[str, Any]]] = {}
    for run in runs:
        by_row.setdefault(run['row'], {})[run['seed']] = run
    if len({tuple(run['scenes']) for run in runs}) > 1:
        raise ValueError('the runs were tested on different scenes; compare runs of the same settings')
    free = runs[0]['free_index']
    rows: dict[str, Any] = {}
    for row, seeds in by_row.items():
        values = [values_of(run['counts'], free) for run in seeds.values()]
        rows[row] = {
            name: dict(
                mean=float(np.mean([v[name] for v in values])),
                std=float(np.std([v[name] for v in values], ddof=1)) if len(values) > 1 else 0.0,
                seeds=sorted(seeds),
            )
            for name in COLUMNS
            if all(name in v for v in values)
        }
    differences: dict[str, Any] = {}
    for row in by_row:
        if row == against or against not in by_row:
            continue
        seeds = sorted(by_row[row].keys() & by_row[against].keys())
        for name, column in COLUMNS.items():
            if not seeds or not all(name in rows[r] for r in (row, against)):
                continue
            sides = [[by_row[r][s]['counts'] for s in seeds] for r in (row, against)]
            a, b = (np.stack([np.asarray(counts[column.reads]) for counts in side]) for side in sides)
            found = paired_bootstrap(a, b, lambda pooled, c=column: c.value(pooled, free), draws)
            # one seed says how scenes vary, not how trainings do
            verdict = found.verdict if found.seeds > 1 else 'open'
            helps = {'open': 'open', column.better: 'helps'}.get(verdict, 'hurts')
            differences.setdefault(row, {})[name] = dict(
                difference=found.difference, low=found.low, high=found.high, p=found.p, seeds=seeds, verdict=helps
            )
    places = [(row, name) for row, columns in differences.items() for name in columns]
    for (row, name), p in zip(places, holm([differences[row][name]['p'] for row, name in places])):
        cell = differences[row][name]
        cell.update(p_holm=float(p), verdict_holm=cell['verdict'] if p < 0.05 else 'open')
    return dict(rows=rows, differences=differences, comparisons=len(places))


def tables(summary: Mapping[str, Any], against: str, titles: Mapping[str, str]) -> str:
    """Two tables in Markdown: means with standard deviations, and differences with intervals.

    Bold: the interval excludes zero. A dagger: still so after Holm's correction.
    """
    names = [name for name in COLUMNS if any(name in row for row in summary['rows'].values())]
    arrows = {'higher': '↑', 'lower': '↓'}
    heads = [f'{COLUMNS[name].title} {arrows[COLUMNS[name].better]}' for name in names]
    body = []
    for row, values in summary['rows'].items():
        cells = []
        for name in names:
            column, value = COLUMNS[name], values.get(name)
            digits = column.digits
            cells.append(
                '–'
                if value is None
                else f'{column.factor * value["mean"]:.{digits}f} ± {column.factor * value["std"]:.{digits}f}'
            )
        step, memory = (summary.get('costs', {}).get(row, {}).get(key) for key in ('seconds_per_step', 'peak_mib'))
        cells += ['–' if step is None else f'{step:.2f}', '–' if memory is None else f'{memory / 1024:.1f}']
        body.append([titles.get(row, row), *cells])
    text = markdown_table(['supervision', *heads, 's / step', 'GiB'], body)
    if not summary['differences']:
        return text
    body = []
    for row, columns in summary['differences'].items():
        cells = []
        for name in names:
            cell, column = columns.get(name), COLUMNS[name]
            if cell is None:
                cells.append('–')
                continue
            low, high, middle = (column.factor * cell[key] for key in ('low', 'high', 'difference'))
            mark = '**' if cell['verdict'] != 'open' else ''
            dagger = ' †' if cell['verdict_holm'] != 'open' else ''
            digits = column.digits
            cells.append(f'{mark}{middle:+.{digits}f}{mark}{dagger} [{low:+.{digits}f}, {high:+.{digits}f}]')
        body.append([f'{titles.get(row, row)} − {titles.get(against, against)}', *cells])
    return f'{text}\n\n{markdown_table(["difference", *heads], body)}'


def plot(summaries: Mapping[str, Any], titles: Mapping[str, str], path: str | Path) -> None:
    """A panel per host and metric: the differences of all rows with their intervals."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    shown = [name for name in COLUMNS if any(name in d for s in summaries.values() for d in s['differences'].values())]
    if not shown:
        return
    height = 1.2 + 0.35 * max(len(summary['differences']) for summary in summaries.values())
    figure, axes = plt.subplots(
        len(summaries), len(shown), figsize=(2.2 * len(shown) + 2, height * len(summaries)), squeeze=False, sharey='row'
    )
    colors = {'helps': '#228833', 'hurts': '#cc3311', 'open': '#777777'}
    for line, (host, summary) in zip(axes, summaries.items()):
        rows = list(summary['differences'])
        for axis, name in zip(line, shown):
            column = COLUMNS[name]
            axis.axvline(0, color='0.7', lw=1)
            for place, row in enumerate(rows):
                cell = summary['differences'][row].get(name)
                if cell is not None:
                    low, high, middle = (column.factor * cell[key] for key in ('low', 'high', 'difference'))
                    axis.plot([low, high], [place, place], color=colors[cell['verdict']], lw=2)
                    axis.plot(middle, place, 'o', color=colors[cell['verdict']], ms=5)
            arrow = {'higher': '→', 'lower': '←'}[column.better]
            axis.set_title(f'{column.title} (better {arrow})', fontsize=8)
            axis.tick_params(labelsize=7)
        line[0].set_yticks(range(len(rows)), [titles.get(row, row) for row in rows], fontsize=8)
        line[0].set_ylim(len(rows) - 0.5, -0.5)
        line[0].set_ylabel(host, fontsize=9)
    figure.tight_layout()
    write_atomically(path, lambda file: figure.savefig(file, dpi=110, format='png'))
    plt.close(figure)
