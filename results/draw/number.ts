// Numbers as kernel people write them: ns us ms s with three or four digits, counts with
// separators, shares in percent. Every function here is pure and locale-free, so that output is the
// same on every host.

const NS_UNITS: readonly (readonly [number, string])[] = [
  [1e9, 's'],
  [1e6, 'ms'],
  [1e3, 'us'],
  [1, 'ns'],
];

/** 812 ns, 1.235 us, 45.20 ms, 7.000 s. */
export function formatNs(valueNs: number): string {
  const size = Math.abs(valueNs);
  for (const [scale, unit] of NS_UNITS) {
    if (scale === 1) return `${digits4(valueNs)} ${unit}`;
    if (size >= scale * 0.9999) return `${fixed4(valueNs / scale)} ${unit}`;
  }
  return `${valueNs} ns`;
}

/** Four significant digits, never in exponent form below 1e9: 0.0123 1.235 12.35 123.5 1235. */
export function digits4(value: number): string {
  return Number.isInteger(value) && Math.abs(value) < 1e5 ? String(value) : fixed4(value);
}

function fixed4(value: number): string {
  const size = Math.abs(value);
  if (size >= 1000) return value.toFixed(0);
  if (size >= 100) return value.toFixed(1);
  if (size >= 10) return value.toFixed(2);
  if (size >= 0.001 || size === 0) return value.toFixed(3);
  return value.toPrecision(3);
}

/** 1,234,567; fractions keep two decimals. */
export function formatCount(value: number): string {
  const text = Number.isInteger(value) ? String(Math.abs(value)) : Math.abs(value).toFixed(2);
  const [whole, fraction] = text.split('.');
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ',');
  return (value < 0 ? '-' : '') + grouped + (fraction === undefined ? '' : `.${fraction}`);
}

/** 0.2762 -> 27.62 %. */
export function formatShare(share: number): string {
  return `${(share * 100).toFixed(2)} %`;
}

/** 1234567 -> 1.235 M/s; below a thousand plain. */
export function formatRate(perSecond: number): string {
  const size = Math.abs(perSecond);
  if (size >= 1e9) return `${digits4(perSecond / 1e9)} G/s`;
  if (size >= 1e6) return `${digits4(perSecond / 1e6)} M/s`;
  if (size >= 1e3) return `${digits4(perSecond / 1e3)} k/s`;
  return `${digits4(perSecond)} /s`;
}

/** +12.3 %, -4.50 %, +210 %, x12.5: a change as a reader wants it, from the ratio new/old. */
export function formatChange(ratio: number): string {
  if (ratio >= 10) return `x${digits4(ratio)}`;
  const percent = (ratio - 1) * 100;
  const sign = percent < 0 ? '-' : '+';
  const size = Math.abs(percent);
  return `${sign}${size >= 100 ? size.toFixed(0) : size.toFixed(2)} %`;
}

/** Three decimals, and never "0.000": `<0.001`. */
export function formatP(p: number): string {
  return p < 0.001 ? '<0.001' : p.toFixed(3);
}

/** Text padded on the right or left to a number of characters (one column each). */
export function padEnd(text: string, width: number): string {
  return text + ' '.repeat(Math.max(0, width - [...text].length));
}

export function padStart(text: string, width: number): string {
  return ' '.repeat(Math.max(0, width - [...text].length)) + text;
}

/** Columns a text takes; our output uses only single-width characters. */
export function widthOf(text: string): number {
  return [...text].length;
}
