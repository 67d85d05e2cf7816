// Everything a user imports from `reft`: the sub-paths together. Nothing is defined here, and importing it touches no
// device.

export * from './tensor/index.js';
export * from './autograd/index.js';
export * from './backends/index.js';
export * as nn from './nn/index.js';
export * from './models/index.js';
export * from './io/index.js';
export * from './data/index.js';
export * from './reft/index.js';
export * from './profile/index.js';
export { DeviceError, openDevice, type DeviceName } from './devices.js';
