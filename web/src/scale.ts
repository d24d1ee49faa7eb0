// How broad lines are: their width grows with the logarithm of the effect, as in the static diagrams.

import { least, max, min } from "d3-array";

/** Sizes of effects of the thinnest line, or below, and of the broadest. */
export interface Scale {
  low: number;
  high: number;
}

/** Of the largest effect to the one that the thinnest line stands for. */
const [LEAST_RANGE, MOST_RANGE] = [10, 1000];

/** Return the scale of some sizes, or null if none is above 0. */
export function scaleOf(sizes: (number | null)[]): Scale | null {
  const measured = sizes.filter((size): size is number => size !== null && size > 0);
  const high = max(measured);
  if (high === undefined) return null;
  const low = Math.max(Math.min(min(measured)!, high / LEAST_RANGE), high / MOST_RANGE);
  return { low, high };
}

/** Return how strong an effect of a size is, from 0 to 1. */
export function strengthOf(size: number, scale: Scale | null): number {
  if (!scale || size <= 0) return 0;
  if (size >= scale.high) return 1;
  return size <= scale.low ? 0 : Math.log(size / scale.low) / Math.log(scale.high / scale.low);
}

/** Return sizes that occur, for a legend: of the thinnest line drawn, of one between, of the broadest. */
export function marksOf(sizes: (number | null)[], scale: Scale): number[] {
  const measured = sizes.filter((size): size is number => size !== null && size > 0);
  const low = Math.max(scale.low, min(measured) ?? 0);
  const { high } = scale;
  const between = measured.filter((size) => size > low && size < high);
  const middle = least(between, (size) => Math.abs(Math.log(size / Math.sqrt(low * high))));
  return [...new Set([low, ...(middle !== undefined && high > 2 * low ? [middle] : []), high])];
}

export function widthOf(strength: number): number {
  return 0.6 + 3.4 * strength;
}
