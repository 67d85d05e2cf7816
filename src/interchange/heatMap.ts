// A matrix as a standalone SVG heat map: layers against positions, one panel for each component. Drawn by Observable
// Plot on a document that needs no browser; both are imported when first used.

export interface HeatMapPanel {
  readonly title: string;
  /** [row][column] */
  readonly values: readonly (readonly number[])[];
}

export interface HeatMapOptions {
  readonly title: string;
  readonly rows: readonly (string | number)[];
  readonly columns: readonly (string | number)[];
  readonly rowLabel?: string;
  readonly columnLabel?: string;
  /** What the numbers are. */
  readonly valueLabel?: string;
  /** Ends of the colour scale. Default: from the least to the greatest value, 0 and 1 within. */
  readonly domain?: readonly [number, number];
}

interface Cell {
  readonly panel: string;
  readonly row: string;
  readonly column: string;
  readonly value: number;
}

/** The same numbers give the same text. @throws RangeError when a panel's values do not fit the labels */
export async function heatMap(panels: readonly HeatMapPanel[], options: HeatMapOptions): Promise<string> {
  const { title, rows, columns, rowLabel = 'layer', columnLabel = 'position', valueLabel = 'effect' } = options;
  if (panels.length === 0) throw new RangeError('heatMap: expected at least one panel, got none');
  for (const panel of panels) {
    if (panel.values.length !== rows.length || panel.values.some(line => line.length !== columns.length)) {
      throw new RangeError(
        `heatMap: panel '${panel.title}' must be ${rows.length} x ${columns.length}, its rows have ${panel.values.map(line => line.length).join(', ')}`,
      );
    }
  }
  const [Plot, { parseHTML }] = await Promise.all([import('@observablehq/plot'), import('linkedom')]);
  // Labels may repeat (two tokens of one text): cells are told apart by number.
  const name =
    (list: readonly (string | number)[]) =>
    (key: string): string =>
      String(list[Number(key)]);
  const cells = panels.flatMap((panel, p): Cell[] =>
    panel.values.flatMap((line, i) =>
      line.map((value, j) => ({ panel: String(p), row: String(i), column: String(j), value })),
    ),
  );
  const finite = cells.map(c => c.value).filter(Number.isFinite);
  const domain = options.domain ?? [Math.min(0, ...finite), Math.max(1, ...finite)];
  const { document } = parseHTML('<!doctype html><html><body></body></html>');
  const [cell, left, many] = [Math.max(36, Math.min(64, 560 / columns.length)), 64, panels.length > 1];
  const inDarkHalf = (value: number): boolean => value > domain[0] + 0.55 * (domain[1] - domain[0]);
  const label = (colour: string, which: (c: Cell) => boolean): ReturnType<typeof Plot.text> =>
    Plot.text(cells.filter(which), {
      x: 'column',
      y: 'row',
      ...(many ? { fy: 'panel' } : {}),
      text: (c: Cell) => c.value.toFixed(2).replace(/^-(0\.00)$/, '$1'),
      fill: colour,
      fontSize: 10,
    });
  const [turned, bottom] = columns.some(c => String(c).length > 5) ? [{ tickRotate: -20 }, 64] : [{}, 44];
  const height = 52 + bottom + panels.length * (rows.length * 26 + (many ? 24 : 0));
  const svg = Plot.plot({
    document: document as unknown as Document,
    width: left + 40 + (many ? 110 : 0) + Math.ceil(cell * columns.length),
    height,
    marginLeft: left,
    marginTop: 48,
    marginBottom: bottom,
    marginRight: many ? 130 : 20,
    ariaLabel: title,
    padding: 0.04,
    x: {
      type: 'band',
      label: columnLabel,
      labelOffset: bottom - 4,
      domain: columns.map((_, i) => String(i)),
      tickFormat: name(columns),
      ...turned,
    },
    // The first layer stands at the bottom, as the computation goes up.
    y: { type: 'band', label: rowLabel, domain: rows.map((_, i) => String(i)).reverse(), tickFormat: name(rows) },
    ...(many ? { fy: { label: null, tickFormat: name(panels.map(p => p.title)) } } : {}),
    color: { type: 'linear', scheme: 'YlGnBu', domain: [...domain], clamp: true, label: valueLabel },
    marks: [
      Plot.cell(cells, {
        x: 'column',
        y: 'row',
        ...(many ? { fy: 'panel' } : {}),
        fill: 'value',
        title: (c: Cell) => `${valueLabel} ${c.value.toFixed(4)}`,
      }),
      label('black', c => !inDarkHalf(c.value)),
      label('white', c => inDarkHalf(c.value)),
      Plot.text([title], {
        facet: 'super',
        frameAnchor: 'top-left',
        dx: -left + 8,
        dy: -36,
        fontSize: 14,
        fontWeight: 'bold',
        textAnchor: 'start',
      }),
    ],
  }) as unknown as { outerHTML: string; setAttribute(name: string, value: string): void };
  svg.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
  svg.setAttribute('style', 'background:white');
  return `${svg.outerHTML}\n`;
}
