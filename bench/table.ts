// The rows: what each measurement is held against, and to which bar. Bars are those of a machine with two cores and
// AVX-512; beside each step stands the portable one, its arithmetic at 0.7 of our GEMM rate. A peer that is absent
// leaves a row that says so.

import { gemmRows, requiredJob } from './gemm.js';
import type { Measurements } from './measure.js';
import type { BenchRow } from './results.js';

type Better = BenchRow['better'];

/** GFLOP a step is left with once what the frozen base allows is kept, and its bar against torch. */
const steps = [
  { job: 'few-shot', gflop: 39, bar: 0.35 },
  { job: 'train-1', gflop: 161, bar: 0.65 },
  { job: 'train-30', gflop: 490, bar: 1.2 },
] as const;

export function tableOf(measured: Measurements, threads: number): BenchRow[] {
  const { gemm, jobs, llamaCpp, python, missing } = measured;
  const rows: BenchRow[] = [];
  const row = (
    name: string,
    unit: string,
    better: Better,
    ours: number,
    peerName: string,
    peer: number | undefined,
    bar: number | null,
    note?: string,
  ): void => {
    const why = peer === undefined && peerName ? `not measured${note ? `: ${note}` : ''}` : note;
    rows.push({ name, ours, peer: peer ?? null, peerName, unit, better, bar, ...(why ? { note: why } : {}) });
  };
  const alone = (name: string, unit: string, better: Better, ours: number): void =>
    row(name, unit, better, ours, '', undefined, null);
  const pythonFigure = (
    name: string,
    figure: string,
    where: (c: Measurements['python'][number]) => boolean = () => true,
  ): number | undefined => python.find(c => c.case === name && where(c))?.[figure] as number | undefined;
  const noPyreft = missing.get('pyreft');
  const rate = (engine: string): number | undefined =>
    gemm?.measured.find(m => m.job === requiredJob && m.engine === engine)?.gflops;
  const best = gemm?.relaxed ? 'fused' : 'plain';
  const many = rate(`fused, ${threads} threads`) ?? rate(best);

  for (const { job, gflop, bar } of steps) {
    const figures = jobs.get(job);
    if (!figures) continue;
    row(job, 's', 'lower', figures['step'], 'pyreft', pythonFigure(job, 'step'), bar, noPyreft);
    if (many !== undefined)
      row(
        job,
        's',
        'lower',
        figures['step'],
        'portable bar',
        gflop / (0.7 * many),
        1,
        `${gflop} GFLOP at 0.7 of our GEMM rate`,
      );
    alone(`${job}, first epoch`, 's', 'lower', figures['firstEpoch']);
    const plain = jobs.get(`${job} --plain`);
    if (plain) alone(`${job}, plain SIMD`, 's', 'lower', plain['step']);
    const peak = pythonFigure(job, 'peak_rss_gb');
    if (job === 'train-30') {
      row(`${job}, peak memory`, 'GB', 'lower', figures['peakBytes'] / 1e9, 'limit', 2, 1);
      row(`${job}, peak memory`, 'GB', 'lower', figures['peakBytes'] / 1e9, 'pyreft', peak, null, noPyreft);
    } else alone(`${job}, peak memory`, 'GB', 'lower', figures['peakBytes'] / 1e9);
  }

  for (const [job, of, torch, bar] of [
    ['prefill-512', 'prefill', 'prefill', 0.9],
    ['decode-1', 'decode', 'decode', 1.3],
  ] as const) {
    const figures = jobs.get(job);
    if (!figures) continue;
    row(job, 'tokens/s', 'higher', figures['rate'], 'llama.cpp', llamaCpp?.[of], bar, missing.get('llama.cpp'));
    row(job, 'tokens/s', 'higher', figures['rate'], 'torch', pythonFigure(torch, 'tokens_per_s'), null, noPyreft);
    const plain = jobs.get(`${job} --plain`);
    if (plain) alone(`${job}, plain SIMD`, 'tokens/s', 'higher', plain['rate']);
    if (job === 'prefill-512') alone(`${job}, first call`, 'tokens/s', 'higher', figures['first']);
    else {
      row(`${job}, resident memory`, 'MB', 'lower', figures['residentBytes'] / 1e6, 'limit', 400, 1);
      row('loading SmolLM2', 's', 'lower', figures['loadSeconds'], 'limit', 2, 1);
    }
  }
  const paired = (job: string, unit: string, ours: string, other: string, peerName: string, bar: number): void => {
    const figures = jobs.get(job);
    if (!figures) return;
    const [mine, peer, ratio] = [ours, other, 'ratio'].map(name => figures[name]);
    rows.push({
      name: job,
      ours: mine,
      peer,
      peerName,
      unit,
      better: 'higher',
      bar,
      pairedRatio: ratio,
      note: 'medians; the ratio is the median of interleaved pairs',
    });
  };
  paired('decode-edits', 'tokens/s', 'rate', 'unedited', 'un-edited', 0.97);
  paired('decode-16', 'steps/s', 'steps', 'one', 'one adapter', 0.95);
  const mixed = jobs.get('decode-16');
  if (mixed) row('decode-16', 'GFLOP/s', 'higher', mixed['gflops'], 'our GEMM rate', many, 0.6);

  if (gemm) {
    const one = rate(best) as number;
    const loop = gemm.registerLoop.fused ?? gemm.registerLoop.plain;
    const why = missing.get('tfjs-wasm');
    row('gemm-1t', 'GFLOP/s', 'higher', one, 'tfjs-wasm', rate('tfjs-wasm'), 1.4, why);
    row('gemm-1t', 'GFLOP/s', 'higher', one, 'jax-js', rate('jax-js'), null, missing.get('jax-js'));
    row('gemm-1t', 'GFLOP/s', 'higher', one, 'registers alone', loop, 0.8);
    alone('gemm-1t, plain SIMD', 'GFLOP/s', 'higher', rate('plain') as number);
    const two = rate('fused, 2 threads');
    if (two !== undefined) {
      row('gemm-2t', 'GFLOP/s', 'higher', two, 'tfjs-wasm', rate('tfjs-wasm'), 2.6, why);
      row('gemm-2t', 'GFLOP/s', 'higher', two, 'our one thread', one, null);
    }
  }
  const whole = jobs.get('edit-pyreft');
  if (whole) {
    const required = (c: Measurements['python'][number]): boolean => c['d'] === 4096 && c['n'] === 112;
    row(
      'edit-pyreft',
      'ms',
      'lower',
      1000 * whole['mapped'],
      'pyreft',
      ms(pythonFigure('edit', 'forward_backward', required)),
      1 / 200,
      noPyreft,
    );
    row(
      'edit-pyreft',
      'ms',
      'lower',
      1000 * whole['mapped'],
      'torch, R given',
      ms(pythonFigure('edit', 'r_given', required)),
      1.5,
      noPyreft,
    );
    alone('edit-pyreft, R given', 'ms', 'lower', 1000 * whole['given']);
  }
  return [...rows, ...(gemm ? gemmRows(gemm) : []), ...(measured.edits ?? [])];
}

const ms = (seconds: number | undefined): number | undefined => (seconds === undefined ? undefined : 1000 * seconds);
