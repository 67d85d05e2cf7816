// The trainer of edits.

import { Trainer } from '../train/trainer.js';
import type { ReftModel } from './reftModel.js';

export class ReftTrainer extends Trainer<ReftModel> {
  /** The edits that are trained. */
  get reft(): ReftModel {
    return this.adapter;
  }
}
