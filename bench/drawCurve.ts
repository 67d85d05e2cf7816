// A scaling curve as a standalone SVG: measured points joined by lines, drawn by Observable Plot on a document that
// needs no browser.

import * as Plot from '@observablehq/plot';
import { parseHTML } from 'linkedom';

export interface CurvePoint {
  readonly x: number;
  readonly y: number;
  /** Which of the curve's lines it is on. */
  readonly line: string;
}

export interface Curve {
  readonly title: string;
  /** Names of the axes. */
  readonly x: string;
  readonly y: string;
  /** Both axes linear from 0; else both are logarithmic. */
  readonly fromZero?: boolean;
  /** Machine and settings, below the plot. */
  readonly note?: string;
  readonly points: readonly CurvePoint[];
}

const colours = ['#c8553d', '#1f6f8b', '#5f8a3c', '#8a5fa8'];

/** 640 x 380; the same points give the same text. */
export function drawCurve({ title, x, y, fromZero = false, note = '', points }: Curve): string {
  const lines = [...new Set(points.map(p => p.line))];
  const ticks = [...new Set(points.map(p => p.x))];
  const last = lines.map(line => points.findLast(p => p.line === line) as CurvePoint);
  const scale = fromZero ? { zero: true } : { type: 'log' as const };
  const { document } = parseHTML('<!doctype html><html><body></body></html>');
  const svg = Plot.plot({
    document: document as unknown as Document,
    width: 640,
    height: 380,
    marginLeft: 56,
    marginTop: 40,
    marginRight: 110,
    marginBottom: 56,
    grid: true,
    ariaLabel: title,
    x: { ...scale, label: x, ticks, tickFormat: (value: number) => String(value) },
    y: { ...scale, label: y, tickFormat: (value: number) => String(Number(value.toPrecision(6))) },
    color: { domain: lines, range: colours },
    marks: [
      Plot.frame({ stroke: '#ddd' }),
      Plot.text([title], { frameAnchor: 'top', dy: -26, fontSize: 13, fontWeight: 'bold' }),
      Plot.text([note], { frameAnchor: 'bottom', dy: 48, fontSize: 9, fill: '#777' }),
      Plot.lineY(points, { x: 'x', y: 'y', stroke: 'line', strokeWidth: 1.5 }),
      Plot.dot(points, { x: 'x', y: 'y', fill: 'line', r: 3 }),
      Plot.text(last, { x: 'x', y: 'y', text: 'line', fill: 'line', textAnchor: 'start', dx: 8 }),
    ],
  }) as unknown as { outerHTML: string; setAttribute(name: string, value: string): void };
  svg.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
  svg.setAttribute('style', 'background:white');
  return `${svg.outerHTML}\n`;
}
