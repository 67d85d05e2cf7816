// One case of the conformance suite: which check it asks for, on which device, and how it ended. Runs in Node and in
// browsers; the command is run.ts.

import { ZodError } from 'zod';
import type { Case } from './cases.js';
import { Comparison } from './compare.js';
import { Unsupported, type RunContext } from './context.js';
import { checkEmbeddings } from './embeddings.js';
import { folderOf, lastOf } from './files.js';
import { Fixture } from './fixture.js';
import { checkForward } from './forward.js';
import { checkLoreft } from './loreft.js';
import { checkInterchange } from './interchange.js';
import { checkPositions } from './positions.js';
import { checkSaved } from './pyreftSaved.js';
import { checkReft, readSettings } from './reft.js';
import { checkTexts } from './texts.js';

export const devices = ['cpu', 'webgpu'] as const;
export type Device = (typeof devices)[number];
/** Of one forward pass, relative to a tensor's largest value; twice that after training. */
const tolerances: Readonly<Record<Device, number>> = { cpu: 1e-5, webgpu: 1e-4 };

export interface CaseResult {
  readonly case: string;
  readonly device: Device;
  readonly status: 'pass' | 'fail' | 'unsupported';
  /** Of the worst tensor; null where nothing was compared, or where it is not finite. */
  readonly maxAbs: number | null;
  readonly maxRel: number | null;
  readonly tolerance: number | null;
  readonly tensor: string | null;
}

/** One case on the context's device; what it throws is a failure of that case. */
export async function runCase(
  c: Case,
  context: RunContext,
  device: Device,
): Promise<{ result: CaseResult; message: string | null }> {
  const comparison = new Comparison();
  let status: CaseResult['status'];
  let message: string | null = null;
  try {
    await check(c, context, tolerances[device], comparison);
    if (comparison.count === 0) throw new Error('holds nothing to compare');
    status = comparison.passed ? 'pass' : 'fail';
  } catch (error) {
    status = error instanceof Unsupported ? 'unsupported' : 'fail';
    message =
      error instanceof ZodError
        ? error.issues.map(i => `${i.path.join('.')}: ${i.message}`).join('; ')
        : (error as Error).message;
  }
  const worst = status === 'unsupported' ? null : comparison.worst;
  const finite = (n: number | undefined): number | null => (n !== undefined && Number.isFinite(n) ? n : null);
  const result: CaseResult = {
    case: c.path,
    device,
    status,
    maxAbs: finite(worst?.maxAbs),
    maxRel: finite(worst?.maxRel),
    tolerance: finite(worst?.bar.tolerance),
    tensor: worst?.tensor ?? null,
  };
  return { result, message };
}

/** Runs the check a case asks for, by what it is called and what it holds. */
async function check(c: Case, context: RunContext, tolerance: number, comparison: Comparison): Promise<void> {
  if (c.type === 'saved') return checkSaved(c.path, context, tolerance, comparison);
  if (c.type === 'json' && lastOf(c.path) === 'positions')
    return checkPositions(await context.files.json(`${c.path}.json`), comparison);
  if (c.type === 'json' && lastOf(c.path) === 'texts')
    return checkTexts(await context.files.json(`${c.path}.json`), context, comparison);
  const fixture = await Fixture.open(context.files, c.path);
  try {
    const { settings } = fixture;
    if (fixture.has('embedding')) return await checkEmbeddings(fixture, context, tolerance, comparison);
    if (fixture.has('source_positions')) return await checkInterchange(fixture, context, tolerance, comparison);
    if (typeof settings.config === 'object' && settings.config !== null && 'peft_type' in settings.config) {
      throw new Unsupported('adapters of peft are not supported');
    }
    if (fixture.has('unit_locations'))
      return await checkReft(fixture, await context.model(readSettings(settings).model), tolerance, comparison);
    // The forward of a model lies beside it; what names a model from elsewhere does something more with it.
    if (typeof settings.model === 'string')
      throw new Unsupported(`what ${lastOf(c.path)} does with a model is not supported`);
    const model = await context.model(folderOf(c.path), classOf(settings.class));
    if (fixture.has('grad.R') && settings.positions !== undefined)
      return await checkLoreft(fixture, model, tolerance, comparison);
    return await checkForward(fixture, model, tolerance, comparison);
  } finally {
    await fixture.close();
  }
}

/** The class of the model beside a case; edits of a family say it in the forward's settings. */
const classOf = (given: unknown): string | undefined => (typeof given === 'string' ? given : undefined);
