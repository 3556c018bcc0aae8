/** Whether values are far from those of the training images: `domain_shift_warning` of `simmat.predictor.encoded`. */

import type { SensorImage } from "./sensors/image";

/** What the training values of a channel were like; `text` says it in the unit that is shown. */
export interface Spread {
  name: string;
  mean: number;
  std: number;
  text: string;
}

/** Standard deviations at which the network clips values, almost; and the share of the pixels that may be there. */
const FAR = 0.99 * 5;
const MAX_FAR_SHARE = 0.5;
/** Least spread of the values, in standard deviations of the training values. */
const FLAT = 0.02;
const SAMPLED_PIXELS = 1 << 14;

/** Return which channel's values are far from the training values, as in another unit or bit depth; "" if none is. */
export function spreadWarning(spreads: readonly (Spread | null)[], image: SensorImage): string {
  for (const spread of spreads) {
    if (!spread) continue;
    const index = image.channels.findIndex(({ name }) => name === spread.name);
    if (index < 0) continue;
    const problem = problemOf(spread, image.data[index], image.valid[index]);
    if (problem) return `${problem} (${spread.text}); are unit, bit depth and exposure the same?`;
  }
  return "";
}

function problemOf({ name, mean, std }: Spread, data: Float32Array, valid: Uint8Array): string {
  const step = Math.max(Math.floor(data.length / SAMPLED_PIXELS), 1);
  let count = 0;
  let far = 0;
  let sum = 0;
  let squares = 0;
  for (let pixel = 0; pixel < data.length; pixel += step) {
    if (!valid[pixel]) continue;
    const away = (data[pixel] - mean) / std;
    count += 1;
    sum += away;
    squares += away * away;
    if (Math.abs(away) >= FAR) far += 1;
  }
  if (count < 2) return "";
  if (far / count > MAX_FAR_SHARE) return `most values of channel '${name}' are far from the training values`;
  const variance = squares / count - (sum / count) ** 2;
  if (variance < FLAT ** 2) return `the values of channel '${name}' vary much less than the training values`;
  return "";
}
