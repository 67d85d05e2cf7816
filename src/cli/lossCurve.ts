// The loss curve of a training run as a standalone SVG, drawn by Observable Plot on a document that needs no browser.

import { signed } from '../reft/signedText.js';
import type { LossPoint } from '../train/trainingRecord.js';

export interface LossCurveOptions {
  readonly title?: string;
  /** A second curve: losses on rows that are not trained on. */
  readonly evaluation?: readonly LossPoint[];
}

/** An SVG of 640 x 360 with a logarithmic loss axis; the same numbers give the same text. */
export async function lossCurve(
  losses: readonly LossPoint[],
  { title = 'Training loss', evaluation = [] }: LossCurveOptions = {},
): Promise<string> {
  const [Plot, { parseHTML }] = await Promise.all([import('@observablehq/plot'), import('linkedom')]);
  const drawable = (points: readonly LossPoint[]): LossPoint[] =>
    points.filter(p => Number.isFinite(p.loss) && p.loss > 0);
  const [training, evaluated] = [drawable(losses), drawable(evaluation)];
  const { document } = parseHTML('<!doctype html><html><body></body></html>');
  const svg = Plot.plot({
    document: document as unknown as Document,
    width: 640,
    height: 360,
    marginLeft: 56,
    marginTop: 40,
    grid: true,
    ariaLabel: title,
    x: { label: 'step', ...(training.length < 2 ? { domain: [0, Math.max(1, ...training.map(p => p.step))] } : {}) },
    y: { type: 'log', label: 'loss (nats a token)', tickFormat: (value: number) => String(value) },
    marks: [
      Plot.frame({ stroke: '#ddd' }),
      Plot.text([title], { frameAnchor: 'top', dy: -26, fontSize: 14, fontWeight: 'bold' }),
      Plot.lineY(training, { x: 'step', y: 'loss', stroke: '#1f6f8b', strokeWidth: 1.5 }),
      Plot.dot(training.slice(-1), { x: 'step', y: 'loss', fill: '#1f6f8b', r: 3 }),
      Plot.lineY(evaluated, { x: 'step', y: 'loss', stroke: '#c8553d', strokeWidth: 1.5 }),
      Plot.dot(evaluated, { x: 'step', y: 'loss', fill: '#c8553d', r: 2.5 }),
    ],
  }) as unknown as { outerHTML: string; setAttribute(name: string, value: string): void };
  svg.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
  svg.setAttribute('style', 'background:white');
  return signed(`${svg.outerHTML}\n`);
}
